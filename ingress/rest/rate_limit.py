"""Limit the request rate of each caller with a token bucket."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

#: Callers remembered; the least recent one is forgotten, which only fills its bucket.
_KNOWN_MAX = 10_000


class RateLimit:
    """Token buckets by caller; used in the event loop only.

    Args:
        per_s: Requests per second in the long run; 0 is no limit.
        burst: Capacity of a bucket: requests accepted at once.
        clock_s: Returns the time.
    """

    def __init__(self, per_s: float, burst: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_s = clock_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> int:
        """Count a request.

        Args:
            caller: Identifies the caller.

        Returns:
            0 if the request is accepted, else the number of seconds to wait.
        """
        if self._per_s == 0:
            return 0
        now_s = self._clock_s()
        left, at_s = self._buckets.pop(caller, (float(self._burst), now_s))
        left = min(float(self._burst), left + (now_s - at_s) * self._per_s)
        accepted = left >= 1
        self._buckets[caller] = (left - 1 if accepted else left, now_s)
        if len(self._buckets) > _KNOWN_MAX:
            self._buckets.popitem(last=False)
        return 0 if accepted else max(1, math.ceil((1 - left) / self._per_s))
