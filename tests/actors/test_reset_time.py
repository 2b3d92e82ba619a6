"""Retry times in headers: every format, and nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.reset_time import reset_after_s

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOW_S = NOW.timestamp()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:59:00 GMT"}, 0.0),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-requests": "8s", "x-ratelimit-reset-tokens": "2s"}, 8.0),
        (
            {
                "x-ratelimit-reset-requests": "1d",
                "x-ratelimit-remaining-requests": "17",
                "x-ratelimit-reset-tokens": "2s",
                "x-ratelimit-remaining-tokens": "0",
            },
            2.0,
        ),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": str(int(NOW_S) + 40)}, 40.0),
        ({"anthropic-ratelimit-requests-reset": "2026-11-22T10:01:00Z"}, 60.0),
        (
            {
                "anthropic-ratelimit-requests-reset": "2026-11-22T11:00:00Z",
                "anthropic-ratelimit-requests-remaining": "3",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-22T10:00:09+00:00",
                "anthropic-ratelimit-input-tokens-remaining": "0",
            },
            9.0,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"x-ratelimit-reset-requests": "6 parsecs"}, None),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "3s"}, 3.0),
    ],
)
def test_dialects(headers: dict[str, str], wait_s: float | None) -> None:
    """Each vendor's format is converted to seconds from now."""
    assert reset_after_s(headers, now_s=NOW_S) == (None if wait_s is None else pytest.approx(wait_s))


def test_the_servers_clock_counts() -> None:
    """A date is measured against the server's own, so a wrong clock here does not matter."""
    headers = {"date": format_datetime(NOW, usegmt=True), "retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}
    assert reset_after_s(headers, now_s=NOW_S - 86_400) == 30.0


@given(st.text(max_size=40))
def test_nonsense(text: str) -> None:
    """Whatever stands there, the answer is None or a wait that is none of the past."""
    for name in ("retry-after", "x-ratelimit-reset-requests", "anthropic-ratelimit-tokens-reset"):
        found = reset_after_s({name: text}, now_s=NOW_S)
        assert found is None or found >= 0
