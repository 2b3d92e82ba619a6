"""Whether the store is unavailable, and since when. Commits wait in ``group_commit.py`` meanwhile."""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger(__name__)


class Outage:
    """Logs the beginning and the end of an outage once; shared by all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since_s: float | None = None

    def begin(self, error: Exception) -> None:
        """Record that a call failed."""
        with self._lock:
            first = self._since_s is None
            if first:
                self._since_s = time.monotonic()
        if first:
            logger.warning("store.away: %s", error)

    def end(self) -> None:
        """Record that a call succeeded."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, self._since_s = self._since_s, None
        if since_s is not None:
            logger.warning("store.back: after %.1f s", time.monotonic() - since_s)

    @property
    def age_s(self) -> float:
        """Duration of the outage so far, in seconds; 0 if there is none."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s
