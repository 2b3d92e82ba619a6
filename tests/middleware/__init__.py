"""Tests of the job's contract, the atomic scripts and the read side."""
