"""LLM providers of ``ask``: their interface, the implementations, and the order in which they are tried."""
