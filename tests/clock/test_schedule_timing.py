"""Run times of schedules: cron lines, intervals, changes of the clocks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.core.schedule_timing import Cron, parse_every, parse_zone, runs_between
from ops.errors import SettingsError

BERLIN = ZoneInfo("Europe/Berlin")
#: Changes by an hour, by half an hour, in the south, at midnight, and no change.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kolkata",
    "UTC",
]


def ms(text: str) -> int:
    """Return a time as milliseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def local(run_ms: int, zone: ZoneInfo = BERLIN) -> str:
    """Return the wall-clock time of a run with its offset."""
    return datetime.fromtimestamp(run_ms / 1000, zone).strftime("%d %H:%M%z")


def walk(line: str, start: str, end: str, zone: ZoneInfo = BERLIN) -> list[str]:
    """Return all runs of a cron line between two times."""
    return [local(run, zone) for run in runs_between(Cron(line, zone, "cron"), ms(start), ms(end), 10_000)]


@pytest.mark.parametrize(
    ("line", "start", "end", "runs"),
    [
        # The clocks go forward at 02:00 on 29 March 2026: there is no 02:30 on that day.
        (
            "30 2 * * *",
            "2026-03-28T00:00Z",
            "2026-03-31T00:00Z",
            ["28 02:30+0100", "29 03:30+0200", "30 02:30+0200"],
        ),
        # They go back at 03:00 on 25 October 2026: there are two.
        (
            "30 2 * * *",
            "2026-10-24T00:00Z",
            "2026-10-27T00:00Z",
            ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"],
        ),
        (
            "30 * * * *",
            "2026-03-28T23:50Z",
            "2026-03-29T03:00Z",
            ["29 01:30+0100", "29 03:30+0200", "29 04:30+0200"],
        ),
        (
            "30 * * * *",
            "2026-10-24T23:50Z",
            "2026-10-25T03:00Z",
            ["25 02:30+0200", "25 02:30+0100", "25 03:30+0100"],
        ),
        # Two times of one day that coincide in spring, and a later one that comes first.
        ("0,45 2,3 * * *", "2026-03-28T23:00Z", "2026-03-29T12:00Z", ["29 03:00+0200", "29 03:45+0200"]),
        ("0 0 29 2 *", "2026-03-01T00:00Z", "2032-03-01T00:00Z", ["29 00:00+0100", "29 00:00+0100"]),
        # If both day fields are given, either may match.
        ("0 9 1 * mon", "2026-06-01T09:00Z", "2026-07-02T00:00Z", ["08", "15", "22", "29", "01"]),
        ("0 9 * * 0", "2026-06-01T00:00Z", "2026-06-15T00:00Z", ["07", "14"]),
        ("0 9 * * 7", "2026-06-01T00:00Z", "2026-06-15T00:00Z", ["07", "14"]),
        ("0 9 * * 1", "2026-06-01T00:00Z", "2026-06-15T00:00Z", ["01", "08"]),
        ("0 9 * * fri-sun", "2026-06-01T00:00Z", "2026-06-08T00:00Z", ["05", "06", "07"]),
        ("@weekly", "2026-06-01T00:00Z", "2026-06-08T00:00Z", ["07"]),
        ("0 9 * jan,jun 1-5/2", "2026-06-01T00:00Z", "2026-06-08T00:00Z", ["01", "03", "05"]),
    ],
)
def test_a_cron_line_runs_at_these_times(line: str, start: str, end: str, runs: list[str]) -> None:
    """Expected runs are prefixes: a day alone matches any time of that day."""
    got = walk(line, start, end)
    assert len(got) == len(runs)
    assert all(have.startswith(want) for have, want in zip(got, runs, strict=True)), got


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", "sun mon tue wed thu fri sat"),
        ("0", "sun"),
        ("7", "sun"),
        ("5", "fri"),
        ("0-0", "sun"),
        ("7-7", "sun"),
        ("7-0", "sun"),
        ("3-3", "wed"),
        ("sun-sun", "sun"),
        ("sat-sat", "sat"),
        ("0-6", "sun mon tue wed thu fri sat"),
        ("0-7", "sun mon tue wed thu fri sat"),
        ("1-7", "sun mon tue wed thu fri sat"),
        ("1-5", "mon tue wed thu fri"),
        ("5-7", "sun fri sat"),
        ("6-7", "sun sat"),
        ("7-2", "sun mon tue"),
        ("5-2", "sun mon tue fri sat"),
        ("fri-mon", "sun mon fri sat"),
        ("fri-sun", "sun fri sat"),
        ("sun-tue", "sun mon tue"),
        ("MON-Fri", "mon tue wed thu fri"),
        ("monday", "mon"),
        ("thurs", "thu"),
        ("1,3,5", "mon wed fri"),
        ("sat,sun", "sun sat"),
        ("0,7", "sun"),
        ("1-2,fri", "mon tue fri"),
        ("*/2", "sun tue thu sat"),
        ("*/7", "sun"),
        ("1-5/2", "mon wed fri"),
        ("2/2", "tue thu sat"),
        ("fri-mon/2", "sun fri"),
        ("0-7/3", "sun wed sat"),
    ],
)
def test_a_day_of_week_field_selects_these_days(field: str, days: str) -> None:
    """Run daily lines for a week and compare the days, Sunday first."""
    start, week_ms = ms("2026-06-07T00:00Z"), 7 * 86_400_000
    runs = runs_between(Cron(f"0 12 * * {field}", ZoneInfo("UTC"), "cron"), start, start + week_ms, 100)
    got = [datetime.fromtimestamp(run / 1000, UTC).strftime("%a").lower() for run in runs]
    assert got == days.split()


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    day=st.dates(datetime(2024, 1, 1).date(), datetime(2030, 12, 1).date()),  # noqa: DTZ001 (only its date)
)
def test_a_line_that_names_its_hour_runs_once_a_day(zone: str, hour: int, minute: int, day: object) -> None:
    """In any zone: thirty days have thirty runs, a day apart except at a change of the clocks."""
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=30)
    cron = Cron(f"{minute} {hour} * * *", ZoneInfo(zone), "cron")
    runs = runs_between(cron, round(start.timestamp() * 1000) - 1, round(end.timestamp() * 1000) - 1, 1_000)
    assert len({datetime.fromtimestamp(run / 1000, ZoneInfo(zone)).date() for run in runs}) == len(runs) == 30
    apart = [(after - before) / 3_600_000 for before, after in itertools.pairwise(runs)]
    assert all(22.9 < hours < 25.1 for hours in apart)


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    minute=st.integers(0, 59),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 1)),  # noqa: DTZ001 (made UTC below)
)
def test_an_hourly_line_runs_by_elapsed_time(zone: str, minute: int, start: datetime) -> None:
    """At every hour that exists, the repeated one included; never twice at one moment."""
    first_ms = round(start.replace(tzinfo=UTC).timestamp() * 1000)
    runs = runs_between(
        Cron(f"{minute} * * * *", ZoneInfo(zone), "cron"), first_ms, first_ms + 48 * 3_600_000, 1_000
    )
    assert all(datetime.fromtimestamp(run / 1000, ZoneInfo(zone)).minute == minute for run in runs)
    # A change by half an hour moves the minute.
    slack = 1 if zone == "Australia/Lord_Howe" else 0
    assert 48 - slack <= len(runs) <= 48 + slack
    assert runs == sorted(set(runs))


@settings(max_examples=60, deadline=None)
@given(start_ms=st.integers(0, 4_000_000_000_000), steps=st.integers(1, 40))
def test_the_start_of_a_search_makes_no_difference(start_ms: int, steps: int) -> None:
    """The run after a moment is the first later run, so schedulers agree whenever they start."""
    cron = Cron("*/20 1-4 * * *", BERLIN, "cron")
    runs = runs_between(cron, start_ms, start_ms + 8 * 86_400_000, steps)
    for run in runs:
        assert cron.next_ms(run - 1) == run
        assert cron.next_ms(run - 60_000) is not None


@pytest.mark.parametrize(
    ("value", "interval_ms"),
    [(1, 1_000), (1.5, 1_500), ("90s", 90_000), ("5m", 300_000), ("1h 30m", 5_400_000), ("1d", 86_400_000)],
)
def test_an_interval_runs_at_its_multiples(value: float | str, interval_ms: int) -> None:
    """Counted from 1970, so that all schedulers agree."""
    every = parse_every(value, "every")
    assert runs_between(every, interval_ms * 7, interval_ms * 10, 10) == [interval_ms * n for n in (8, 9, 10)]
    assert every.next_ms(interval_ms * 7 - 1) == interval_ms * 7


@pytest.mark.parametrize("value", [0, 0.5, -1, "0s", "5", "5 minutes", "", "m5"])
def test_an_invalid_interval_is_refused(value: float | str) -> None:
    """The error names the valid form."""
    with pytest.raises(SettingsError) as caught:
        parse_every(value, "every of 'x'")
    assert caught.value.message.startswith("every of 'x'")
    assert caught.value.remedy


@pytest.mark.parametrize(
    "line",
    [
        *("", "* * * *", "* * * * * *", "61 * * * *", "a * * * *", "0 0 30 2 *", "0 0 * * 8", "0 0 * * 1-8"),
        *("0 0 * * mon-", "0 0 * * -fri", "0 0 * * 1/0", "0 0 * * 1/x", "0 0 * * mo", "0 0 * * frisbee"),
        "0 0 * * 1,,2",
    ],
)
def test_an_invalid_cron_line_is_refused(line: str) -> None:
    """So is a line that never runs."""
    with pytest.raises(SettingsError) as caught:
        Cron(line, BERLIN, "cron of 'x'")
    assert caught.value.message.startswith("cron of 'x'")


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "/etc/passwd"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    """Paths included."""
    with pytest.raises(SettingsError):
        parse_zone(name, "timezone of 'x'")
