"""Coordinates of the two charts of the last hour; the template draws them as SVG.

Each chart has 60 columns, one per minute; the last one is the current minute. The latency axis is
logarithmic: one bridge has answers in milliseconds and tasks of minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from middleware.job.metrics import MetricPoint

MINUTES = 60
_MINUTE_MS = 60_000
#: Size of the plot in its own units; it is stretched to the width of the page, its strokes are not.
WIDTH, HEIGHT = 600.0, 120.0
_GAP = 1.6
#: Lower end of the latency axis, which goes up by powers of ten.
_LOW_MS = 1.0
_NICE = (1, 2, 5)
_LINES: tuple[tuple[str, str, Callable[[MetricPoint], float | None]], ...] = (
    ("wait p50", "wait", lambda point: point.wait_p50_ms),
    ("wait p95", "wait slow", lambda point: point.wait_p95_ms),
    ("run p50", "run", lambda point: point.run_p50_ms),
    ("run p95", "run slow", lambda point: point.run_p95_ms),
)


class ThroughputBar(Struct, frozen=True):
    """One minute of throughput."""

    x: float
    width: float
    y: float
    height: float
    failed_y: float
    failed_height: float


class AxisTick(Struct, frozen=True):
    """A grid line with its label.

    Attributes:
        y: Distance from the top in the plot's units.
        label: Value of the line.
    """

    y: float
    label: str


class Throughput(Struct, frozen=True, kw_only=True):
    """Finished jobs per minute."""

    bars: list[ThroughputBar]
    ticks: list[AxisTick]
    completed: int
    failed: int
    peak: int
    last_minute: int


class LatencyLine(Struct, frozen=True, kw_only=True):
    """A line of the latency chart.

    Attributes:
        name: Name in the legend.
        style: CSS classes.
        path: SVG path.
        now_ms: The most recent value.
    """

    name: str
    style: str
    path: str
    now_ms: float | None


class Latency(Struct, frozen=True, kw_only=True):
    """Wait and run times of jobs."""

    lines: list[LatencyLine]
    ticks: list[AxisTick]


def throughput(points: Sequence[MetricPoint], now_ms: int) -> Throughput:
    """Return the throughput chart.

    Args:
        points: Samples of the last hour, 10 s each.
        now_ms: Time of the store.
    """
    completed, failed = [0.0] * MINUTES, [0.0] * MINUTES
    for point in points:
        at = _minute(point, now_ms)
        if at is not None:
            completed[at] += point.completed_per_s * point.window_s
            failed[at] += point.failed_per_s * point.window_s
    highest = max(one + other for one, other in zip(completed, failed, strict=True))
    top = _nice_above(highest)
    step = WIDTH / MINUTES
    bars = []
    for at in range(MINUTES):
        if completed[at] + failed[at] == 0:
            continue
        height, failed_height = (value / top * HEIGHT for value in (completed[at], failed[at]))
        bars.append(
            ThroughputBar(
                _round(at * step + _GAP / 2),
                _round(step - _GAP),
                _round(HEIGHT - height),
                _round(height),
                _round(HEIGHT - height - failed_height),
                _round(failed_height),
            )
        )
    return Throughput(
        bars=bars,
        ticks=[_tick(value / top, f"{value:g}") for value in (top / 2, top)],
        completed=round(sum(completed)),
        failed=round(sum(failed)),
        peak=round(highest),
        last_minute=round(completed[-1] + failed[-1]),
    )


def latency(points: Sequence[MetricPoint], now_ms: int) -> Latency:
    """Return the latency chart; a minute has the value of its slowest sample.

    Args:
        points: Samples of the last hour, 10 s each.
        now_ms: Time of the store.
    """
    series = [_by_minute(points, now_ms, value) for _, _, value in _LINES]
    known = [value for values in series for value in values if value is not None]
    decades = max(3, math.ceil(math.log10(max([*known, _LOW_MS]) / _LOW_MS)))
    lines = [
        LatencyLine(
            name=name,
            style=style,
            path=_path(values, decades),
            now_ms=next((value for value in reversed(values) if value is not None), None),
        )
        for (name, style, _), values in zip(_LINES, series, strict=True)
    ]
    ticks = [_tick(at / decades, _decade(at)) for at in range(1, decades + 1)]
    return Latency(lines=lines, ticks=ticks)


def span(ms: float | None) -> str:
    """Return a time span as text: ``3 ms``, ``1.2 s``, ``4 min``."""
    if ms is None:
        return "–"  # noqa: RUF001 (a dash, not a minus)
    for limit_ms, unit_ms, unit in ((1_000, 1, "ms"), (60_000, 1_000, "s"), (3_600_000, 60_000, "min")):
        if ms < limit_ms:
            value = ms / unit_ms
            digits = 1 if unit != "ms" and value < 10 and value % 1 else 0  # noqa: PLR2004 (one is enough)
            return f"{value:.{digits}f} {unit}"
    return f"{ms / 3_600_000:.1f} h"


def _minute(point: MetricPoint, now_ms: int) -> int | None:
    ago = (now_ms - point.at_ms) // _MINUTE_MS
    return MINUTES - 1 - ago if 0 <= ago < MINUTES else None


def _by_minute(
    points: Sequence[MetricPoint], now_ms: int, value: Callable[[MetricPoint], float | None]
) -> list[float | None]:
    found: list[float | None] = [None] * MINUTES
    for point in points:
        at, ms = _minute(point, now_ms), value(point)
        if at is not None and ms is not None:
            before = found[at]
            found[at] = ms if before is None else max(before, ms)
    return found


def _path(values: Sequence[float | None], decades: int) -> str:
    """Return the SVG path through the minutes with a value; an isolated one is a short dash."""
    step = WIDTH / MINUTES
    parts: list[str] = []
    for at, value in enumerate(values):
        if value is None:
            continue
        share = min(1.0, max(0.0, math.log10(max(value, _LOW_MS) / _LOW_MS) / decades))
        x, y = (at + 0.5) * step, HEIGHT * (1 - share)
        before = values[at - 1] if at else None
        after = values[at + 1] if at + 1 < len(values) else None
        if before is not None:
            parts.append(f"L{x:.1f} {y:.1f}")
        elif after is not None:
            parts.append(f"M{x:.1f} {y:.1f}")
        else:
            parts.append(f"M{x - step / 3:.1f} {y:.1f}H{x + step / 3:.1f}")
    return "".join(parts)


def _nice_above(value: float) -> float:
    """Return the next of 2, 4, 10, 20, 40, ...: numbers whose half is whole too."""
    base = 1.0
    while True:
        for factor in _NICE:
            if value <= factor * base * 2:
                return factor * base * 2
        base *= 10


def _tick(share: float, label: str) -> AxisTick:
    return AxisTick(_round(HEIGHT * (1 - share)), label)


def _decade(at: int) -> str:
    return f"{10**at} ms" if at < 3 else f"{10 ** (at - 3)} s"  # noqa: PLR2004 (a second has 10^3 ms)


def _round(value: float) -> float:
    return round(value, 1)
