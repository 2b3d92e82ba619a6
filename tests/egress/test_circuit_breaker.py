"""Deliveries to a destination that keeps failing are paused; the others are not affected."""

from __future__ import annotations

import pytest
from dramatiq.errors import Retry

from actors.egress.retry_delay import CircuitBreaker, RetryLater
from ops.errors import JobFailed


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def read(self) -> float:
        """Return the time."""
        return self.now_s


def is_closed(breaker: CircuitBreaker, destination: str) -> bool:
    """Return whether a destination may be tried now."""
    try:
        breaker.require_closed(destination)
    except RetryLater:
        return False
    return True


def test_three_consecutive_failures_pause_a_destination() -> None:
    """The pause doubles up to five minutes; one success resets it; other destinations are not paused."""
    clock = Clock()
    breaker = CircuitBreaker(5.0, 300.0, clock=clock.read)
    for _ in range(2):
        breaker.record_failure("webhook:a")
    breaker.require_closed("webhook:a")
    for pause_s in (5, 10, 20, 40, 80, 160, 300, 300):
        breaker.record_failure("webhook:a")
        breaker.require_closed("webhook:b")
        with pytest.raises(
            RetryLater, match=r"webhook:a are paused after \d+ consecutive failures"
        ) as raised:
            breaker.require_closed("webhook:a")
        assert raised.value.delay is not None
        assert pause_s * 1000 <= raised.value.delay <= pause_s * 2000
        clock.now_s += pause_s
        breaker.require_closed("webhook:a")
    breaker.record_success("webhook:a")
    breaker.record_failure("webhook:a")
    breaker.require_closed("webhook:a")


def test_concurrent_failures_do_not_prolong_a_pause() -> None:
    """Threads that fail at the same moment start one pause, not one after the other."""
    clock = Clock()
    breaker = CircuitBreaker(5.0, 300.0, clock=clock.read)
    for _ in range(10):
        breaker.record_failure("webhook:a")
    assert not is_closed(breaker, "webhook:a")
    clock.now_s += 5.1
    assert is_closed(breaker, "webhook:a")


def test_retry_later_carries_delay_and_reason() -> None:
    """It is a Dramatiq ``Retry`` and a ``JobFailed``: middleware reads the delay from it, and the reason."""
    error = RetryLater("later.", delay_s=1.5)
    assert isinstance(error, JobFailed)
    assert isinstance(error, Retry)
    assert (error.message, error.delay) == ("later.", 1500)
