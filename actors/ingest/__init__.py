"""Ingestion of dropped files: the decision, the seven actions, and the journal that makes them undoable."""
