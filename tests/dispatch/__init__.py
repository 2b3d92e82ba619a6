"""Tests of the Python API with real workers."""
