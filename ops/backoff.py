"""Exponential backoff: how long to wait between attempts that fail."""

from __future__ import annotations

import threading
import time

#: Defaults of ``Backoff``, for calls to the store: an outage is noticed to be over within a second.
FIRST_S = 0.04
MAX_S = 1.0
_EXPONENT_MAX = 30


def exponential_s(failures: int, *, first_s: float, max_s: float) -> float:
    """Return the wait after a number of failures, without jitter: it doubles from ``first_s`` to ``max_s``.

    Args:
        failures: How many attempts have failed in a row, from 1.
        first_s: Wait after the first failure.
        max_s: Upper bound of any wait.
    """
    return float(min(max_s, first_s * 2.0 ** min(max(failures - 1, 0), _EXPONENT_MAX)))


class Backoff:
    """Counts failures in a row and waits between attempts. Not for use by several threads at once.

    Args:
        first_s: Wait after the first failure.
        max_s: Upper bound of any wait.
        jitter: Part of each wait that is random, 0 to 1; it spreads the attempts of many processes.

    Attributes:
        failures: How many attempts have failed since the last success.
    """

    def __init__(self, first_s: float = FIRST_S, max_s: float = MAX_S, *, jitter: float = 0.5) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self.failures = 0

    def next_s(self) -> float:
        """Count a failure and return how long to wait before the next attempt, in seconds."""
        import random  # 1 ms, which '3ox run' does without

        self.failures += 1
        longest_s = exponential_s(self.failures, first_s=self._first_s, max_s=self._max_s)
        return longest_s * (1.0 - self._jitter * random.random())  # noqa: S311 (no secret)

    def wait(self, stopping: threading.Event) -> bool:
        """Count a failure and wait before the next attempt; return True if ``stopping`` ended the wait."""
        return stopping.wait(self.next_s())

    def sleep(self) -> None:
        """Count a failure and wait before the next attempt, where nothing may end the wait early."""
        time.sleep(self.next_s())

    def reset(self) -> None:
        """Note a success: the next wait is the first one again."""
        self.failures = 0
