"""Says once that the store is away and once that it is back, and how long to wait in between."""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger(__name__)


class Outage:
    """Shared by all threads of a process that talk to the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since_s: float | None = None

    def begin(self, error: Exception) -> None:
        """Note that a call failed; the first one is logged."""
        with self._lock:
            first = self._since_s is None
            if first:
                self._since_s = time.monotonic()
        if first:
            logger.warning("store.away: %s", error)

    def end(self) -> None:
        """Note that a call succeeded; if the store was away, it is logged."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, self._since_s = self._since_s, None
        if since_s is not None:
            logger.warning("store.back: after %.1f s", time.monotonic() - since_s)

    @property
    def age_s(self) -> float:
        """For how long the store has been away; 0 if it is not."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s
