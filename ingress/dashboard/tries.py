"""Bounds sign-ins that fail: a token of ours cannot be guessed, one that somebody thought up may be."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

#: So many may fail within the time, of one address.
TRIES_MAX = 10
WINDOW_S = 60.0
#: Whoever has not failed for the longest is forgotten.
_KNOWN_MAX = 10_000


class Tries:
    """Counts sign-ins that failed, by address; used in the event loop only.

    Args:
        clock_s: Gives the time.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, who: str) -> int:
        """Tell for how many seconds this address has to wait; 0 if it may try."""
        times = self._failed.get(who)
        if times is None or len(times) < TRIES_MAX:
            return 0
        return max(0, math.ceil(times[0] + WINDOW_S - self._clock_s()))

    def note(self, who: str) -> None:
        """Count a failure."""
        times = self._failed.pop(who, None)
        times = deque(maxlen=TRIES_MAX) if times is None else times
        times.append(self._clock_s())
        self._failed[who] = times
        if len(self._failed) > _KNOWN_MAX:
            self._failed.popitem(last=False)
