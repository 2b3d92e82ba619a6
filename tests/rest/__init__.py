"""The REST API as a real process over real HTTP."""
