"""Tests of what is deployed: unit files, metrics' queries, traces, several hosts, the documentation."""
