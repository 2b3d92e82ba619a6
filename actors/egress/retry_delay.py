"""When a sink is tried again: when it says so, or after a rest if it has failed several times in a row.

Without the rest, a receiver that takes connections and never answers would keep every delivery thread
waiting, and what is meant for the other sinks behind them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from dramatiq.errors import Retry

from ops.backoff import exponential_s
from ops.errors import JobFailed

#: Failures in a row after which a sink rests.
_PATIENCE = 3
#: More sinks than this are not kept in mind.
_SINKS_MAX = 256


class ComeBack(JobFailed, Retry):
    """The sink takes nothing now; it is known when to try again.

    Parameters:
        delay_s: How long to wait, in seconds.
    """

    def __init__(self, message: str, *, delay_s: float) -> None:
        super().__init__(message)
        self.delay = round(delay_s * 1000)


class Rests:
    """Which sinks rest, as this process has seen it.

    Args:
        min_s: The first rest, in seconds.
        max_s: The longest, in seconds.
        clock: Gives seconds that only go forward.
    """

    def __init__(self, min_s: float, max_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._until_s: dict[str, float] = {}

    def require_awake(self, sink: str) -> None:
        """Return if a sink may be tried.

        Raises:
            ComeBack: It rests; the wait is spread, so that not all deliveries come at its end.
        """
        left_s = self._until_s.get(sink, 0.0) - self._clock()
        if left_s > 0:
            wait_s = left_s * random.uniform(1.0, 2.0)  # noqa: S311
            raise ComeBack(
                f"{sink} failed {self._failures.get(sink, 0)} times in a row and rests.", delay_s=wait_s
            )

    def took(self, sink: str) -> None:
        """Note that a sink has taken something."""
        with self._lock:
            self._failures.pop(sink, None)
            self._until_s.pop(sink, None)

    def failed(self, sink: str) -> None:
        """Note that a sink has not taken something: from the third time on it rests, ever longer."""
        with self._lock:
            if len(self._failures) >= _SINKS_MAX and sink not in self._failures:
                self._failures.clear()
                self._until_s.clear()
            count = self._failures[sink] = self._failures.get(sink, 0) + 1
            if count >= _PATIENCE and self._until_s.get(sink, 0.0) <= self._clock():
                rest_s = exponential_s(count - _PATIENCE + 1, first_s=self._min_s, max_s=self._max_s)
                self._until_s[sink] = self._clock() + rest_s
