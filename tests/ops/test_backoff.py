"""The waits of ``ops.backoff``, as properties of the arithmetic."""

from __future__ import annotations

import threading

import hypothesis.strategies as st
from hypothesis import given

from ops.backoff import FIRST_S, MAX_S, Backoff, exponential_s

failures = st.integers(1, 10_000)
bounds = st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)).map(sorted)


@given(failures, bounds)
def test_the_wait_doubles_up_to_its_bound(count: int, bound: list[float]) -> None:
    """It starts with ``first_s``, doubles with each failure, and stays at ``max_s`` once there."""
    first_s, max_s = bound
    assert exponential_s(1, first_s=first_s, max_s=max_s) == first_s
    now_s, next_s = (exponential_s(count + more, first_s=first_s, max_s=max_s) for more in (0, 1))
    assert first_s <= now_s <= next_s <= max_s
    assert next_s in {max_s, 2 * now_s} or now_s == next_s


@given(st.integers(1, 50))
def test_jitter_shortens_a_wait_by_half_at_most(count: int) -> None:
    """An outage of the store is noticed to be over within a second, without a busy loop."""
    backoff = Backoff()
    backoff.failures = count - 1
    longest_s = exponential_s(count, first_s=FIRST_S, max_s=MAX_S)
    assert longest_s / 2 <= backoff.next_s() <= longest_s <= MAX_S


def test_without_jitter_the_waits_are_exact() -> None:
    """The supervisor announces the wait that it keeps."""
    backoff = Backoff(0.05, 0.3, jitter=0.0)
    assert [backoff.next_s() for _ in range(4)] == [0.05, 0.1, 0.2, 0.3]
    assert backoff.failures == 4


def test_a_success_starts_again_with_the_first_wait() -> None:
    """``reset`` forgets the failures."""
    backoff = Backoff(0.05, 0.3, jitter=0.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_s() == 0.05


def test_stopping_ends_a_wait() -> None:
    """A process that is stopping does not wait for its backoff."""
    stopping = threading.Event()
    stopping.set()
    assert Backoff(60.0, 60.0).wait(stopping) is True
