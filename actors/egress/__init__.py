"""Destinations of results: one module per kind, each with one function ``deliver``."""
