"""Tests of the Telegram interface."""
