"""From raw figures to the table: medians, ratios, and the bars to hold."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from tests.bench.commands import Commands
from tests.bench.contestants import NAMES, OURS, RESULTS, STOCK, USER
from tests.bench.measure import Latency, Plan, Throughput

FINISHED_MAX_BYTES = 2048
PICKUP_P95_MAX_MS = 10.0
COMMAND_MAX_MS = 100.0
#: Two equal things differ by a few percent in rounds that follow each other.
USER_MIN_RATIO = 0.95
COMMAND_MAX_RATIO = 1.35


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table.

    Attributes:
        figure: What was measured, with its unit.
        ours: Our figure.
        stock: Of stock Dramatiq without Results; None where it was not measured.
        results: Of stock Dramatiq with Results.
        ratio: Ours to the one that we are compared with.
        bar: What has to hold, in words; empty where nothing has to.
        held: Whether it does; None where nothing has to.
        means: What the figure is, in a sentence.
    """

    figure: str
    ours: float
    stock: float | None = None
    results: float | None = None
    ratio: float | None = None
    bar: str = ""
    held: bool | None = None
    means: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run found; ``--json`` writes it."""

    plan: Plan
    machine: dict[str, str]
    seconds: float
    throughput: list[Throughput]
    latency: list[Latency]
    commands: Commands
    rows: list[Row]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of the values that ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def make_rows(throughput: Sequence[Throughput], latency: Sequence[Latency], commands: Commands) -> list[Row]:
    """Work the table out.

    Args:
        throughput: All rounds of all contestants.
        latency: Ours and stock with Results.
        commands: Of the command line.
    """
    by_name = {one.contestant: one for one in latency}
    return [
        *_rates(throughput),
        *_latencies(by_name[OURS], by_name[RESULTS]),
        *_memory(throughput),
        *_commands(commands),
    ]


def _medians(rounds: Sequence[Throughput], figure: str) -> dict[str, float]:
    return {
        name: statistics.median(getattr(one, figure) for one in rounds if one.contestant == name)
        for name in NAMES
        if any(one.contestant == name and getattr(one, figure) is not None for one in rounds)
    }


def _at_least(
    figure: str, ours: float, values: dict[str, float], rival: str, *, bar: float, means: str
) -> Row:
    ratio = ours / values[rival]
    return Row(
        figure=figure,
        ours=ours,
        stock=values.get(STOCK),
        results=values.get(RESULTS),
        ratio=ratio,
        bar=f">= {bar:g} x {rival}",
        held=ratio >= bar,
        means=means,
    )


def _at_most(figure: str, ours: float, stock: float, parts: int, means: str) -> Row:
    return Row(
        figure=figure,
        ours=ours,
        results=stock,
        ratio=ours / stock,
        bar="<= stock" if parts == 1 else f"<= 1/{parts} of stock",
        held=ours * parts <= stock,
        means=means,
    )


def _beside(figure: str, ours: float, stock: float, means: str) -> Row:
    return Row(figure=figure, ours=ours, results=stock, ratio=ours / stock, means=means)


def _rates(rounds: Sequence[Throughput]) -> list[Row]:
    enqueue, drain = _medians(rounds, "enqueue_per_s"), _medians(rounds, "drain_per_s")
    batch = _medians(rounds, "batch_per_s")[OURS]
    return [
        _at_least(
            "enqueue one by one, jobs/s",
            enqueue[OURS],
            enqueue,
            STOCK,
            bar=0.8,
            means="dispatch() beside actor.send(), from one thread, workers frozen",
        ),
        _at_least(
            "enqueue a batch, jobs/s",
            batch,
            {STOCK: enqueue[STOCK]},
            STOCK,
            bar=4.0,
            means="dispatch_many() beside actor.send(), since stock has no batch",
        ),
        _at_least(
            "drain beside stock, jobs/s",
            drain[OURS],
            {STOCK: drain[STOCK]},
            STOCK,
            bar=1.0,
            means="first to last commit of a full queue; stock keeps nothing, ours result, receipt, events",
        ),
        _at_least(
            "drain beside Results, jobs/s",
            drain[OURS],
            {RESULTS: drain[RESULTS]},
            RESULTS,
            bar=1.5,
            means="the same; stock with Results keeps the result",
        ),
        *_actors(drain, _medians(rounds, "worker_us")),
    ]


def _actors(drain: dict[str, float], worker_us: dict[str, float]) -> list[Row]:
    """Return the rows of a user's actor beside a built-in one; both are no-ops with the same body."""
    ratio = drain[USER] / drain[OURS]
    rows = [
        Row(
            figure="drain of a user's actor, jobs/s",
            ours=drain[USER],
            ratio=ratio,
            bar=f">= {USER_MIN_RATIO:g} x built-in",
            held=ratio >= USER_MIN_RATIO,
            means="the same for an actor of a user, beside the built-in one; its body is stock Dramatiq's",
        )
    ]
    if OURS in worker_us:
        rows += [
            Row(
                figure="worker CPU per job, us",
                ours=worker_us[OURS],
                stock=worker_us[STOCK],
                results=worker_us[RESULTS],
                ratio=worker_us[OURS] / worker_us[RESULTS],
                means="processor time of both workers while the queue is drained; depends little on load",
            ),
            Row(
                figure="worker CPU per user's job, us",
                ours=worker_us[USER],
                ratio=worker_us[USER] / worker_us[OURS],
                means="the same for the actor of a user, beside the built-in one",
            ),
        ]
    return rows


def _latencies(ours: Latency, stock: Latency) -> list[Row]:
    p95_ms = percentile(ours.pickup_ms, 95)
    return [
        _at_most(
            "idle pickup p50, ms",
            statistics.median(ours.pickup_ms),
            statistics.median(stock.pickup_ms),
            100,
            "from before the job is sent until its body begins, by the clock of the machine",
        ),
        Row(
            figure="idle pickup p95, ms",
            ours=p95_ms,
            results=percentile(stock.pickup_ms, 95),
            ratio=p95_ms / percentile(stock.pickup_ms, 95),
            bar=f"< {PICKUP_P95_MAX_MS:g} ms",
            held=p95_ms < PICKUP_P95_MAX_MS,
            means="the same; 19 of 20 jobs begin sooner",
        ),
        _at_most(
            "round trip when idle, ms",
            statistics.median(ours.idle_trip_ms),
            statistics.median(stock.idle_trip_ms),
            20,
            "median of the same jobs until wait_for() or get_result() returns",
        ),
        _beside(
            "round trip when busy, ms",
            statistics.median(ours.busy_trip_ms),
            statistics.median(stock.busy_trip_ms),
            "median for a job sent the moment another one's result has come",
        ),
        _beside(
            "store when idle, requests/s",
            ours.idle_requests_per_s,
            stock.idle_requests_per_s,
            "what both idle workers send to the store",
        ),
        _at_most(
            "store when idle, commands/s",
            ours.idle_commands_per_s,
            stock.idle_commands_per_s,
            1,
            "all commands that the store runs for that, those inside scripts counted too",
        ),
    ]


def _memory(rounds: Sequence[Throughput]) -> list[Row]:
    queued, finished = _medians(rounds, "queued_bytes"), _medians(rounds, "finished_bytes")
    return [
        Row(
            figure="memory per queued job, bytes",
            ours=queued[OURS],
            stock=queued[STOCK],
            results=queued[RESULTS],
            ratio=queued[OURS] / queued[STOCK],
            means="growth of the store's used_memory, all keys counted, by the number of jobs",
        ),
        Row(
            figure="memory per finished job, bytes",
            ours=finished[OURS],
            stock=finished[STOCK],
            results=finished[RESULTS],
            ratio=finished[OURS] / finished[RESULTS],
            bar=f"<= {FINISHED_MAX_BYTES} bytes",
            held=finished[OURS] <= FINISHED_MAX_BYTES,
            means="the same after the drain; stock forgets the job itself, the ratio is to Results",
        ),
    ]


def _commands(commands: Commands) -> list[Row]:
    click_ms = statistics.median(commands.click_ms)
    run_ms = statistics.median(commands.run_ms)
    rows = [
        Row(
            figure="3ox run, ms",
            ours=run_ms,
            ratio=run_ms / click_ms,
            bar=f"<= {COMMAND_MAX_RATIO:g} x click",
            held=run_ms <= COMMAND_MAX_RATIO * click_ms,
            means=f"whole process; python -c 'import click' took {click_ms:.0f} ms by turns with it",
        ),
        Row(
            figure="3ox run, absolute, ms",
            ours=run_ms,
            bar=f"< {COMMAND_MAX_MS:g} ms",
            held=run_ms < COMMAND_MAX_MS,
            means=f"the same; python -c pass took {statistics.median(commands.bare_ms):.0f} ms",
        ),
    ]
    for name, values in (("3ox sh --detach, ms", commands.sh_ms), ("3ox ask --detach, ms", commands.ask_ms)):
        median_ms = statistics.median(values)
        rows.append(Row(figure=name, ours=median_ms, ratio=median_ms / click_ms, means="likewise"))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out as plain text, what each figure means below them."""
    head = ("figure", "ours", STOCK, RESULTS, "ratio", "bar", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    text = []
    for line in lines:
        cells = [
            cell.rjust(width) if 0 < at < 5 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * max(len(line) for line in text))
    notes = [f"  {row.figure.split(',')[0].ljust(widths[0] - 2)}{row.means}" for row in rows]
    return "\n".join([*text, "", *notes])


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "" if row.held is None else "ok" if row.held else "MISSED"
    ratio = "" if row.ratio is None else _ratio(row.ratio)
    return (row.figure, _number(row.ours), _number(row.stock), _number(row.results), ratio, row.bar, verdict)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _ratio(ratio: float) -> str:
    return f"1/{1 / ratio:,.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"
