"""A sink that fails again and again rests, and keeps nobody waiting."""

from __future__ import annotations

import pytest
from dramatiq.errors import Retry

from actors.egress.retry_delay import ComeBack, Rests
from ops.errors import JobFailed


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def read(self) -> float:
        """Give the time."""
        return self.now_s


def is_awake(rests: Rests, sink: str) -> bool:
    """Tell whether a sink may be tried now."""
    try:
        rests.require_awake(sink)
    except ComeBack:
        return False
    return True


def test_a_sink_rests_after_three_failures_in_a_row() -> None:
    """Others do not; the rest doubles, up to five minutes, and one success ends it."""
    clock = Clock()
    rests = Rests(5.0, 300.0, clock=clock.read)
    for _ in range(2):
        rests.failed("webhook:a")
    rests.require_awake("webhook:a")
    for rest_s in (5, 10, 20, 40, 80, 160, 300, 300):
        rests.failed("webhook:a")
        rests.require_awake("webhook:b")
        with pytest.raises(ComeBack, match=r"webhook:a failed \d+ times in a row and rests") as raised:
            rests.require_awake("webhook:a")
        assert raised.value.delay is not None
        assert rest_s * 1000 <= raised.value.delay <= rest_s * 2000
        clock.now_s += rest_s
        rests.require_awake("webhook:a")
    rests.took("webhook:a")
    rests.failed("webhook:a")
    rests.require_awake("webhook:a")


def test_what_was_under_way_does_not_make_a_rest_longer() -> None:
    """Several threads fail at the same moment; that is one failure more, not one rest after the other."""
    clock = Clock()
    rests = Rests(5.0, 300.0, clock=clock.read)
    for _ in range(10):
        rests.failed("webhook:a")
    assert not is_awake(rests, "webhook:a")
    clock.now_s += 5.1
    assert is_awake(rests, "webhook:a")


def test_coming_back_is_a_failure_that_names_its_wait() -> None:
    """Dramatiq's Retry and our JobFailed at once: the middleware take the wait from it, and the reason."""
    error = ComeBack("later.", delay_s=1.5)
    assert isinstance(error, JobFailed)
    assert isinstance(error, Retry)
    assert (error.message, error.delay) == ("later.", 1500)
