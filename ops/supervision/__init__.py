"""Supervision of the processes of one host."""
