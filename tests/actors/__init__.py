"""Tests of the actors, each driven with a real job context."""
