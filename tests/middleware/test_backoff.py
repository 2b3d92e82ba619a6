"""Waits between the attempts of a job, as properties of the arithmetic."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from middleware.retries import actor_retry_wait_s, retry_wait_s

bounds = st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)).map(sorted)
fractions = st.floats(0, 1)
tries = st.integers(0, 10_000)


@given(tries, bounds, fractions)
def test_a_wait_stays_within_its_bounds(used: int, bound: list[float], fraction: float) -> None:
    """Never negative, never above the longest, however often it failed."""
    wait_s = retry_wait_s(used, min_s=bound[0], max_s=bound[1], fraction=fraction)
    assert 0 <= wait_s <= bound[1]


@given(tries, bounds)
def test_the_longest_wait_grows_until_it_is_capped(used: int, bound: list[float]) -> None:
    """It doubles from attempt to attempt and stays at the cap once there."""
    now_s, next_s = (
        retry_wait_s(used + more, min_s=bound[0], max_s=bound[1], fraction=1.0) for more in (0, 1)
    )
    assert now_s <= next_s
    assert next_s in {bound[1], 2 * now_s} or now_s == next_s


@given(bounds)
def test_the_first_wait_is_at_most_the_shortest(bound: list[float]) -> None:
    """After one failure the wait is at most ``min_s``."""
    assert retry_wait_s(0, min_s=bound[0], max_s=bound[1], fraction=1.0) == bound[0]


@given(tries, bounds, fractions, fractions)
def test_jitter_is_full(used: int, bound: list[float], one: float, other: float) -> None:
    """The random part spreads the wait over all of 0 to the longest, in proportion."""
    low, high = sorted((one, other))
    waits = [
        retry_wait_s(used, min_s=bound[0], max_s=bound[1], fraction=part) for part in (0.0, low, high, 1.0)
    ]
    assert waits == sorted(waits)
    assert waits[0] == 0.0


@given(tries, bounds, fractions)
def test_an_actor_waits_its_shortest_wait_at_least(used: int, bound: list[float], fraction: float) -> None:
    """``min_backoff`` is a minimum as in Dramatiq, unless the longest wait is shorter."""
    wait_s = actor_retry_wait_s(used, min_s=bound[0], max_s=bound[1], fraction=fraction)
    assert min(bound[0], bound[1] / 2) <= wait_s <= bound[1]
    first_s = actor_retry_wait_s(0, min_s=bound[0], max_s=1e9, fraction=fraction)
    assert bound[0] <= first_s <= 2 * bound[0]
