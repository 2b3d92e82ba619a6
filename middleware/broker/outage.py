"""Says once that the store is away and once that it is back, and how long to wait in between."""

from __future__ import annotations

import logging
import random
import threading
import time

FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 1.0

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


def backoff_s(tries: int) -> float:
    """Give how long to wait before try number ``tries`` + 1, with jitter, at most a second."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0))  # noqa: S311
