"""What tests of the station's parts share: a clock that stands, and the look for one file."""

from __future__ import annotations

from pathlib import Path

from ingress.station.inbox import Found, Inbox
from ops.settings.load import load_settings

IGNORE = load_settings(Path("/nonexistent"), environ={}).settings.station.ignore


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now_s


def found(inbox: Path, name: str) -> Found:
    """Look through the folder and give the one of this name."""
    return next(item for item in Inbox(inbox, IGNORE).look().files if item.name == name)
