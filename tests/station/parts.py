"""Helpers of unit tests: a clock that only the test moves, and a scan for one file."""

from __future__ import annotations

from pathlib import Path

from ingress.station.scanner import DroppedFile, Scanner
from ops.settings.station import StationSettings

DEFAULTS = StationSettings()


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def found(inbox: Path, name: str) -> DroppedFile:
    """Scan the folder and return the file of this name."""
    return next(item for item in Scanner(inbox, DEFAULTS).scan().files if item.name == name)
