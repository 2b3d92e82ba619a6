"""Numbers and words of attempts: they never contradict each other, whatever the attempts were for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.job.records import AttemptCount

FEW = st.integers(0, 20)


@pytest.mark.parametrize(
    ("count", "text", "reason"),
    [
        (AttemptCount(attempt=0, max_retries=3), "", "failed in attempt 0 of 4: no"),
        (AttemptCount(attempt=1, max_retries=0), "1", "failed: no"),
        (AttemptCount(attempt=2, max_retries=3), "2 of 4", "failed in attempt 2 of 4: no"),
        (AttemptCount(attempt=7, max_retries=None), "7", "failed in attempt 7: no"),
        (
            AttemptCount(attempt=2, max_retries=0, before=1),
            "2 of 2, 1 before the retry by hand",
            "failed in attempt 2 of 2: no",
        ),
        (
            AttemptCount(attempt=4, max_retries=1, lost=2, parked=1),
            "4 of 5, 2 lost their worker, 1 parked",
            "failed in attempt 4 of 5: no",
        ),
    ],
)
def test_texts(count: AttemptCount, text: str, reason: str) -> None:
    """As lists, pages and receipts show them."""
    assert (str(count), count.failed("no")) == (text, reason)


@given(FEW, st.none() | FEW, FEW, FEW, FEW)
def test_no_attempt_is_beyond_the_last(
    attempt: int, max_retries: int | None, lost: int, parked: int, before: int
) -> None:
    """Never ``2 of 1``: a job that runs on without a limit has none."""
    count = AttemptCount(attempt=attempt, max_retries=max_retries, lost=lost, parked=parked, before=before)
    assert count.most is None or count.attempt <= count.most
