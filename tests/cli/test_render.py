"""Text for people: escaped, short, readable."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ingress.cli.watch import ProgressBar
from ingress.core.text import (
    count_of,
    duration,
    job_rows,
    one_line,
    percent,
    safe,
    seconds_between,
    summary_line,
    uncounted,
)
from middleware.job.records import JobRecord
from middleware.job.states import State


@given(st.text())
def test_safe_text_has_no_control_characters(text: str) -> None:
    """Of control characters, only line ends and tabs are left."""
    for letter in safe(text):
        assert letter in "\n\t" or unicodedata.category(letter) not in {"Cc", "Cs"}
        assert letter not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_safe_leaves_ordinary_text_alone(text: str) -> None:
    """Letters, digits, signs and spaces of any script stay as they are."""
    assert safe(text) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs")])
def test_one_is_not_a_plural(number: int, text: str) -> None:
    """A number agrees with what it counts."""
    assert count_of(number, "job") == text


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    """No text spans more than one line."""
    assert len(one_line(text).splitlines()) <= 1


def test_carriage_return_ends_the_line() -> None:
    """A carriage return cannot overwrite a line."""
    assert safe("10%\r20%\r\ndone") == "10%\n20%\ndone"


def test_escape_is_shown() -> None:
    """Escape sequences are visible, in ASCII."""
    assert safe("\x1b[2J\x9b31m\x00") == "\\x1b[2J\\x9b31m\\x00"


@pytest.mark.parametrize(
    ("span_s", "text"),
    [
        (-1, "0.0s"),
        (0, "0.0s"),
        (0.0084, "8ms"),
        (0.44, "0.4s"),
        (9.99, "10.0s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (90_000, "1d01h"),
    ],
)
def test_duration(span_s: float, text: str) -> None:
    """Durations are shown in their two largest units."""
    assert duration(span_s) == text


def test_seconds_between() -> None:
    """RFC 3339 times are compared; without a start the result is None."""
    assert seconds_between("2026-01-01T00:00:00.250Z", "2026-01-01T00:01:00.000Z") == 59.75
    assert seconds_between(None) is None


def test_summary_names_unusual_states_only_when_there_are_any() -> None:
    """Processing, queued, completed and failed are always shown."""
    assert summary_line({}) == "Processing: 0  Queued: 0  Completed: 0  Failed: 0"
    assert summary_line({"processing": 1, "held": 2, "cancelled": 3}) == (
        "Processing: 1  Queued: 0  Held: 2  Completed: 0  Failed: 0  Cancelled: 3"
    )


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reported", [0.0, 42.9, 99.9, 100.0])
def test_only_a_completed_job_is_shown_as_done(state: State, reported: float) -> None:
    """Its percentage is 100 and its bar full; any other job keeps what it reported, below that."""
    record = JobRecord(
        job_id="01kb9x",
        trace_id="01kb9x",
        job_type="heartbeat",
        status=state,
        source="cli",
        actor="ada",
        project=None,
        session_id=None,
        priority=5,
        progress=reported,
    )
    shown = 100 if state == State.COMPLETED else min(99, int(reported))
    assert percent(record) == shown
    assert job_rows([record])[0][3] == f"{shown}%"
    console = Console(width=10, file=io.StringIO(), color_system=None)
    console.print(ProgressBar(record))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert drawn.count("━") == {0: 0, 42: 4, 99: 9, 100: 10}[shown]
    assert ("─" in drawn) == (state != State.COMPLETED)


def test_lists_that_the_counts_do_not_fit_are_named() -> None:
    """The store counts by state, type and project; words, sources and days it does not."""
    assert uncounted(search=None, day=None, source=None) == ""
    assert uncounted(search="ada", day=None, source="cli") == "filtered by search and source"
