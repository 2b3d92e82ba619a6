"""When a schedule runs: cron lines by local time with its daylight-saving changes, and fixed intervals.

APScheduler reads the cron fields and finds the next time that fits them. It does so on wall-clock times
without a zone; what becomes of them on the two odd days of a year is decided here, as cron has it:

- A line that names its hours (``30 2 * * *``) runs once on each day it names. Where the clocks go forward
  over that time it runs as long after midnight as on other days (at 03:30), where they go back at the first
  02:30.
- A line whose hours are ``*`` or ``*/N`` runs by elapsed time: every minute, quarter or hour that there is,
  those of the repeated hour included, and none that there is not.
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

#: The tick of the loop is one second; a schedule finer than that would be late more often than not.
EVERY_MIN_MS = 1_000
#: A line like `0 0 30 2 *` never runs; one for 29 February runs within eight years.
_FAR = timedelta(days=366 * 9)
#: How far apart from a change of the clocks times may come in another order: no zone changes by more, but
#: for an island that moved over the date line.
_ODD = timedelta(hours=26)
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
    """The run times of a schedule, all determined by its settings: every clock finds the same."""

    def next_ms(self, after_ms: int) -> int | None:
        """Give the first run later than this, in milliseconds since 1970; None if there is none."""


def runs_between(timing: Timing, after_ms: int, until_ms: int, limit: int) -> list[int]:
    """Give the runs later than ``after_ms`` and not later than ``until_ms``, at most so many, in order."""
    runs: list[int] = []
    at_ms = timing.next_ms(after_ms)
    while at_ms is not None and at_ms <= until_ms and len(runs) < limit:
        runs.append(at_ms)
        at_ms = timing.next_ms(at_ms)
    return runs


class Every:
    """Runs at all multiples of an interval since 1970-01-01 00:00 UTC.

    Args:
        interval_ms: At least a second.
    """

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms

    def next_ms(self, after_ms: int) -> int:
        """See ``Timing``."""
        return (after_ms // self._interval_ms + 1) * self._interval_ms


def parse_every(value: float | str, where: str) -> Every:
    """Read an interval.

    Args:
        value: Seconds, or a text like ``90s``, ``5m``, ``1h30m``, ``1d``.
        where: The setting, for the error.

    Raises:
        SettingsError: It is none, or shorter than a second.
    """
    if isinstance(value, str):
        text = value.replace(" ", "")
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise SettingsError(
                f"{where} is no interval: {value!r}.",
                remedy="Write seconds, or a text like '90s', '5m', '1h30m', '1d'.",
            )
        interval_ms = sum(int(number) * _UNITS_MS[unit] for number, unit in parts)
    else:
        interval_ms = round(value * 1000)
    if interval_ms < EVERY_MIN_MS:
        raise SettingsError(f"{where} is shorter than a second: {value!r}.", remedy="Use one second or more.")
    return Every(interval_ms)


def parse_zone(name: str, where: str) -> ZoneInfo:
    """Find a time zone.

    Raises:
        SettingsError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"{where} is no time zone: {name!r}.", remedy="Use a name like 'UTC' or 'Europe/Berlin'."
        ) from error


class Cron:
    """Runs at the times of a cron line.

    Args:
        line: Minute, hour, day of month, month, day of week as in crontab(5), names of months and days
            included; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.
        zone: Whose wall clock is meant.
        where: The setting, for the error.

    Raises:
        SettingsError: The line cannot be read, or names a time that never comes.
    """

    def __init__(self, line: str, zone: ZoneInfo, where: str) -> None:
        self._zone = zone
        fields = _MACROS.get(line.strip().lower(), line).lower().split()
        if len(fields) != 5:  # noqa: PLR2004 (as a cron line has)
            raise SettingsError(
                f"{where} has {len(fields)} fields, not 5: {line!r}.",
                remedy="Write minute, hour, day of month, month, day of week: '30 2 * * *'.",
            )
        #: See the head of this module.
        self._by_elapsed_time = fields[1].startswith("*")
        try:
            self._trigger = _trigger(fields)
        except ValueError as error:
            raise SettingsError(
                f"{where} cannot be read: {line!r}: {error}.",
                remedy="Write minute, hour, day of month, month, day of week: '30 2 * * *'.",
            ) from error
        if next(self._walls(datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
            raise SettingsError(f"{where} names a time that never comes: {line!r}.", remedy="Correct it.")

    def next_ms(self, after_ms: int) -> int | None:
        """See ``Timing``."""
        after = datetime.fromtimestamp(after_ms / 1000, UTC)
        best: datetime | None = None
        horizon: datetime | None = None
        for wall in self._walls(self._wall(after) - self._shift_near(after)):
            if horizon is not None and wall > horizon:
                break
            for moment in self._moments(wall):
                if moment > after and (best is None or moment < best):
                    best = moment
                    # A later wall-clock time can come sooner, by as much as the clocks are put there.
                    horizon = wall + self._shift_near(moment)
        return None if best is None else round(best.timestamp() * 1000)

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Give the wall-clock times that fit, as UTC so that none of them is odd, from ``start`` on."""
        last = start + _FAR
        wall = self._trigger.get_next_fire_time(None, start)
        while wall is not None and wall <= last:
            yield wall
            wall = self._trigger.get_next_fire_time(wall, wall + timedelta(seconds=1))

    def _wall(self, moment: datetime) -> datetime:
        return moment.astimezone(self._zone).replace(tzinfo=UTC)

    def _moments(self, wall: datetime) -> list[datetime]:
        """Give the moments at which the wall clock shows this; see the head of this module."""
        first = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if not self._by_elapsed_time:
            return [first]
        second = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return [moment for moment in sorted({first, second}) if self._wall(moment) == wall]

    def _shift_near(self, moment: datetime) -> timedelta:
        """Give by how much the clocks are put within a day or so of this moment."""
        offsets = [
            (moment + step).astimezone(self._zone).utcoffset()
            for step in (-_ODD, -_ODD / 2, timedelta(0), _ODD / 2, _ODD)
        ]
        known = [offset for offset in offsets if offset is not None]
        return max(known) - min(known)


def _trigger(fields: list[str]) -> BaseTrigger:
    """Give APScheduler's trigger for the five fields.

    Its days of the week begin with Monday = 0, cron's with Sunday = 0 or 7; and cron takes a day that fits
    either of the two day fields if both are given.
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
