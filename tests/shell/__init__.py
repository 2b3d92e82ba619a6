"""Tests of the shell, and of the sessions that it and others speak in."""
