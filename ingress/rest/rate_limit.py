"""How many requests somebody may make: a bucket of tokens for each, refilled as time goes by."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

#: Whoever has not asked for the longest is forgotten, which only fills their bucket.
_KNOWN_MAX = 10_000


class RateLimit:
    """Limits requests; used in the event loop only.

    Args:
        per_s: How many per second in the long run; 0 is no limit.
        burst: How many at once.
        clock_s: Gives the time.
    """

    def __init__(self, per_s: float, burst: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_s = clock_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> int:
        """Count a request.

        Args:
            who: Makes it.

        Returns:
            0 if it may pass; otherwise for how many seconds to wait.
        """
        if self._per_s == 0:
            return 0
        now_s = self._clock_s()
        left, at_s = self._buckets.pop(who, (float(self._burst), now_s))
        left = min(float(self._burst), left + (now_s - at_s) * self._per_s)
        passes = left >= 1
        self._buckets[who] = (left - 1 if passes else left, now_s)
        if len(self._buckets) > _KNOWN_MAX:
            self._buckets.popitem(last=False)
        return 0 if passes else max(1, math.ceil((1 - left) / self._per_s))
