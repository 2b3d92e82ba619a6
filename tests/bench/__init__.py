"""Measures our full path beside stock Dramatiq, on this machine, in one run: ``python -m tests.bench``."""
