"""When a failing destination is tried again: at the time it names, or after a pause.

Without the pause, a receiver that accepts connections and never answers would occupy every delivery thread,
and results for the other destinations would wait behind it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from dramatiq.errors import Retry

from ops.errors import JobFailed

#: Consecutive failures after which deliveries to a destination pause.
_FAILURES_MAX = 3
#: State is kept for this many destinations.
_DESTINATIONS_MAX = 256


class RetryLater(JobFailed, Retry):
    """The destination cannot accept the result now; the time of the next attempt is known.

    Parameters:
        delay_s: Time until the next attempt, in seconds.
    """

    def __init__(self, message: str, *, delay_s: float) -> None:
        super().__init__(message)
        self.delay = round(delay_s * 1000)


class CircuitBreaker:
    """Pauses deliveries to destinations that fail repeatedly; the state belongs to this process.

    Args:
        min_s: First pause, in seconds; each further failure doubles it.
        max_s: Longest pause, in seconds.
        clock: Returns monotonic seconds.
    """

    def __init__(self, min_s: float, max_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._until_s: dict[str, float] = {}

    def require_closed(self, destination: str) -> None:
        """Return if a destination may be tried now.

        Raises:
            RetryLater: Its deliveries are paused. The delay is randomized so that they do not all resume at
                the same moment.
        """
        left_s = self._until_s.get(destination, 0.0) - self._clock()
        if left_s > 0:
            delay_s = left_s * random.uniform(1.0, 2.0)  # noqa: S311
            count = self._failures.get(destination, 0)
            raise RetryLater(
                f"Deliveries to {destination} are paused after {count} consecutive failures.",
                delay_s=delay_s,
            )

    def record_success(self, destination: str) -> None:
        """Reset the failures of a destination."""
        with self._lock:
            self._failures.pop(destination, None)
            self._until_s.pop(destination, None)

    def record_failure(self, destination: str) -> None:
        """Count a failure; from the third consecutive one on, pause the destination, each time longer."""
        with self._lock:
            if len(self._failures) >= _DESTINATIONS_MAX and destination not in self._failures:
                self._failures.clear()
                self._until_s.clear()
            count = self._failures[destination] = self._failures.get(destination, 0) + 1
            if count >= _FAILURES_MAX and self._until_s.get(destination, 0.0) <= self._clock():
                pause_s = min(self._max_s, self._min_s * 2.0 ** min(count - _FAILURES_MAX, 10))
                self._until_s[destination] = self._clock() + pause_s
