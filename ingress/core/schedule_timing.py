"""Run times of a schedule: cron lines in local time, with daylight saving, and fixed intervals.

APScheduler parses the cron fields and finds the next matching wall-clock time, without a time zone. This
module maps wall-clock times to moments when the clocks change, with cron's rules:

- A line with fixed hours (``30 2 * * *``) runs once on each of its days. Where the clocks skip that time, it
  runs as long after midnight as on other days (at 03:30); where they repeat it, it runs the first time.
- A line whose hours are ``*`` or ``*/N`` runs by elapsed time: at every matching minute that exists, those
  of the repeated hour included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ops.errors import SettingsError

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]

#: The scheduler's loop turns once a second, so shorter intervals would mostly start late.
EVERY_MIN_MS = 1_000
#: How far to search. `0 0 30 2 *` never runs; 29 February comes within eight years.
_FAR = timedelta(days=366 * 9)
#: Span around a change of the clocks in which wall-clock order and real order may differ. No zone changes by
#: more, except for islands that moved across the date line.
_CHANGE_SPAN = timedelta(hours=26)
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


class Timing(Protocol):
    """The run times of a schedule. They follow from its settings, so all schedulers compute the same."""

    def next_ms(self, after_ms: int) -> int | None:
        """Return the first run after a time, both in milliseconds since 1970; None if there is none."""


def runs_between(timing: Timing, after_ms: int, until_ms: int, limit: int) -> list[int]:
    """Return the first ``limit`` runs after ``after_ms``, up to and including ``until_ms``, in order."""
    runs: list[int] = []
    at_ms = timing.next_ms(after_ms)
    while at_ms is not None and at_ms <= until_ms and len(runs) < limit:
        runs.append(at_ms)
        at_ms = timing.next_ms(at_ms)
    return runs


class Every:
    """Runs at all multiples of an interval since 1970-01-01 00:00 UTC.

    Args:
        interval_ms: At least 1,000.
    """

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms

    def next_ms(self, after_ms: int) -> int:
        """Implement ``Timing``."""
        return (after_ms // self._interval_ms + 1) * self._interval_ms


def parse_every(value: float | str, where: str) -> Every:
    """Parse an interval.

    Args:
        value: Seconds, or a text like ``90s``, ``5m``, ``1h30m``, ``1d``.
        where: Name of the setting, for the error.

    Raises:
        SettingsError: The value is not an interval, or shorter than a second.
    """
    if isinstance(value, str):
        text = value.replace(" ", "")
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise SettingsError(
                f"{where} is not an interval: {value!r}.",
                remedy="Write seconds, or a text like '90s', '5m', '1h30m', '1d'.",
            )
        interval_ms = sum(int(number) * _UNITS_MS[unit] for number, unit in parts)
    else:
        interval_ms = round(value * 1000)
    if interval_ms < EVERY_MIN_MS:
        raise SettingsError(f"{where} is shorter than a second: {value!r}.", remedy="Use one second or more.")
    return Every(interval_ms)


def parse_zone(name: str, where: str) -> ZoneInfo:
    """Return the time zone of a name.

    Raises:
        SettingsError: The name is unknown.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"{where} is not a time zone: {name!r}.", remedy="Use a name like 'UTC' or 'Europe/Berlin'."
        ) from error


class Cron:
    """Runs at the times of a cron line.

    Args:
        line: Minute, hour, day of month, month, day of week as in crontab(5), names of months and days
            included; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.
        zone: Time zone of the line.
        where: Name of the setting, for the error.

    Raises:
        SettingsError: The line is not valid, or never runs.
    """

    def __init__(self, line: str, zone: ZoneInfo, where: str) -> None:
        self._zone = zone
        fields = _MACROS.get(line.strip().lower(), line).lower().split()
        if len(fields) != 5:  # noqa: PLR2004 (as a cron line has)
            raise SettingsError(
                f"{where} has {len(fields)} fields, not 5: {line!r}.",
                remedy="Write minute, hour, day of month, month, day of week: '30 2 * * *'.",
            )
        # See the docstring of this module.
        self._by_elapsed_time = fields[1].startswith("*")
        try:
            self._trigger = _trigger(fields)
        except ValueError as error:
            raise SettingsError(
                f"{where} is not valid: {line!r}: {error}.",
                remedy="Write minute, hour, day of month, month, day of week: '30 2 * * *'.",
            ) from error
        if next(self._walls(datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
            raise SettingsError(
                f"{where} never runs: {line!r}.", remedy="Name a day that exists in the month."
            )

    def next_ms(self, after_ms: int) -> int | None:
        """Implement ``Timing``."""
        after = datetime.fromtimestamp(after_ms / 1000, UTC)
        best: datetime | None = None
        latest_wall: datetime | None = None
        for wall in self._walls(self._wall(after) - self._shift_near(after)):
            if latest_wall is not None and wall > latest_wall:
                break
            for moment in self._moments(wall):
                if moment > after and (best is None or moment < best):
                    best = moment
                    # A later wall-clock time can come sooner, by as much as the clocks change.
                    latest_wall = wall + self._shift_near(moment)
        return None if best is None else round(best.timestamp() * 1000)

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Yield the matching wall-clock times from ``start`` on; as UTC, which skips and repeats none."""
        last = start + _FAR
        wall = self._trigger.get_next_fire_time(None, start)
        while wall is not None and wall <= last:
            yield wall
            wall = self._trigger.get_next_fire_time(wall, wall + timedelta(seconds=1))

    def _wall(self, moment: datetime) -> datetime:
        return moment.astimezone(self._zone).replace(tzinfo=UTC)

    def _moments(self, wall: datetime) -> list[datetime]:
        """Return the moments of a wall-clock time; see the docstring of this module."""
        first = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if not self._by_elapsed_time:
            return [first]
        second = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return [moment for moment in sorted({first, second}) if self._wall(moment) == wall]

    def _shift_near(self, moment: datetime) -> timedelta:
        """Return by how much the clocks change within about a day of this moment."""
        offsets = [
            (moment + step).astimezone(self._zone).utcoffset()
            for step in (-_CHANGE_SPAN, -_CHANGE_SPAN / 2, timedelta(0), _CHANGE_SPAN / 2, _CHANGE_SPAN)
        ]
        known = [offset for offset in offsets if offset is not None]
        return max(known) - min(known)


def _trigger(fields: list[str]) -> BaseTrigger:
    """Return APScheduler's trigger for the five fields.

    APScheduler counts weekdays from Monday = 0, cron from Sunday = 0 or 7. If both day fields are given, cron
    runs on days that match either of them.
    """
    from apscheduler.triggers.combining import OrTrigger  # type: ignore[import-untyped]
    from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]

    minute, hour, day, month, weekday = fields
    weekdays = _weekdays(weekday)
    common = {"minute": minute, "hour": hour, "month": month, "timezone": UTC}
    if day.startswith("*") or weekday.startswith("*"):
        return CronTrigger(day=day, day_of_week=weekdays, **common)
    return OrTrigger(
        [CronTrigger(day=day, **common), CronTrigger(day_of_week=weekdays, day="*", **common)],
    )


def _weekdays(field: str) -> str:
    """Translate cron's day-of-week field into a list of day names, which APScheduler reads the same way."""
    if field == "*":
        return field
    numbers = {number for part in field.split(",") for number in _weekday_range(part)}
    return ",".join(_DAYS[number][:3] for number in sorted(numbers))


def _weekday_range(part: str) -> list[int]:
    """Return the days that one part of the field names, Sunday = 0.

    A range may cross the end of the week: ``fri-mon`` is Friday to Monday, ``5-7`` Friday to Sunday.

    Raises:
        ValueError: The part is not valid.
    """
    span, slash, step_text = part.partition("/")
    first, dash, last = span.partition("-")
    if slash and not (step_text.isdecimal() and int(step_text) > 0):
        raise ValueError(f"the step of {part!r} must be a whole number above 0")
    step = int(step_text) if slash else 1
    if span == "*":
        return list(range(0, 7, step))
    low = _weekday(first) % 7
    if not dash:
        return list(range(low, 7, step)) if slash else [low]
    high = _weekday(last)
    if high == 7 and first == "7":  # noqa: PLR2004 (cron's second number for Sunday)
        high = 0
    if high < low:
        high += 7
    return [number % 7 for number in range(low, high + 1, step)]


def _weekday(text: str) -> int:
    """Return the number of a day: 0 to 7 as written, or 0 to 6 for a name of at least three letters."""
    if text.isdecimal() and int(text) <= 7:  # noqa: PLR2004 (Sunday is 0 or 7)
        return int(text)
    for number, name in enumerate(_DAYS):
        if len(text) >= 3 and name.startswith(text):  # noqa: PLR2004 (sun, mon, ...)
            return number
    raise ValueError(f"{text!r} is not a day of the week")
