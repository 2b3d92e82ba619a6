"""Parked attempts: read from the receipt chain, and how long each wait is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from middleware.parked_attempts import PARKED, parked_wait_s, read_free_attempts


def line(at: int, status: str, attempt: int = 0, reason: str = "") -> bytes:
    """Return a line as the store functions write it."""
    return f'{{"at":{at},"status":"{status}","attempt":{attempt},"worker":"w","reason":"{reason}"}}'.encode()


def test_only_parked_attempts_of_this_life_count() -> None:
    """Failures do not count, nor do attempts before a retry by hand."""
    chain = [
        line(1_000, "queued"),
        line(1_100, "processing", 1),
        line(1_200, "retrying", 1, PARKED + "then: slow"),
        line(6_200, "processing", 2),
        line(6_300, "failed", 2, "it would have to wait"),
        line(9_000, "queued", 2, "retried by hand"),
        line(9_100, "processing", 3),
        line(9_200, "retrying", 3, PARKED + "then: slow"),
        line(14_200, "processing", 4),
        line(14_300, "retrying", 4, "attempt 4 failed: oops"),
        line(15_200, "processing", 5),
        line(15_300, "queued", 5, "recovered from w (killed) in attempt 5"),
        line(15_400, "processing", 6),
    ]
    free = read_free_attempts(chain, base_attempt=2)
    assert (free.parked, free.lost, free.since_ms, free.waiting_s) == (1, 1, 9_200, 6.2)
    assert read_free_attempts(chain[:2], base_attempt=0).parked == 0


@given(st.floats(0, 1e6), st.integers(0, 500), st.floats(0, 1))
def test_wait(after_s: float, parks: int, fraction: float) -> None:
    """Never before the time that was named, never much later, never a busy loop."""
    wait_s = parked_wait_s(after_s, parked=parks, fraction=fraction)
    least_s = min(2.0**parks, 64.0)
    assert max(after_s, least_s) <= wait_s <= max(after_s, least_s) * 1.1 + 5
