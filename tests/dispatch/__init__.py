"""Tests of the doors and of real workers behind them."""
