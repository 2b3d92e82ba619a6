"""Tests of the shell and of sessions."""
