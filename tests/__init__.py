"""Tests: real store, real processes, real HTTP; run with `make test`."""
