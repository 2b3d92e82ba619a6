"""Lays a run's figures out as a plain table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from tests.bench.report import percentile
from tests.chaos.follow_ups import FollowUps
from tests.chaos.plan import Plan
from tests.chaos.verdict import Verdict

_REASONS_MAX = 6


class Report(Struct, frozen=True, kw_only=True):
    """All that a run found; ``--json`` writes it.

    Attributes:
        command: Replays the plan.
        seconds: How long it took, start and stop included.
        refused: Jobs that the daemon refused, by the error's name.
        done: Faults that hit something, by kind.
        ingress_ends: Unasked ends of the daemon.
        jobs_in_hand: Of the killed workers, all together.
        outages_s: How long the store did not answer, each time.
        resumed_s: From the store's return to the next end of a job, each time.
        orphans: Command lines of processes of jobs that were there when every job had ended.
        left: Command lines of what was there after ``3ox down``.
        problems: What must not be -> how many.
    """

    command: str
    plan: Plan
    seconds: float
    verdict: Verdict
    follow_ups: FollowUps
    refused: Mapping[str, int]
    done: Mapping[str, int]
    torn: Mapping[str, int]
    cut_connections: int
    ingress_ends: int
    jobs_in_hand: int
    outages_s: Sequence[float]
    resumed_s: Sequence[float]
    orphans: Sequence[str]
    left: Sequence[str]
    problems: Mapping[str, int]


def table(report: Report) -> str:
    """Lay everything out: figure, value, remark."""
    rows = [*_jobs(report), *_follow_ups(report), *_times(report), *_faults(report)]
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    lines = [
        f"{name.ljust(widths[0])}  {value.rjust(widths[1])}  {remark}".rstrip()
        for name, value, remark in rows
    ]
    lines.insert(0, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _jobs(report: Report) -> list[tuple[str, str, str]]:
    verdict = report.verdict
    kinds = ", ".join(f"{count} {kind}" for kind, count in verdict.by_kind.most_common())
    again = ", ".join(f"{count} {way}" for way, count in verdict.rerun_after.most_common())
    failures = verdict.failures.most_common(_REASONS_MAX)
    ended = Counter({status: count for status, count in verdict.by_status.items() if status != "completed"})
    return [
        ("jobs accepted", f"{verdict.accepted}", kinds),
        ("refused", f"{sum(report.refused.values())}", _counts(report.refused)),
        ("completed", f"{verdict.by_status['completed']}", _counts(ended)),
        ("failed", f"{verdict.by_status['failed']}", ""),
        ("lost", f"{len(verdict.lost)}", "accepted, but unknown or never ended"),
        ("committed twice", f"{len(verdict.committed_twice)}", "two ends in the receipt or in the events"),
        (
            "ends that the store forgot",
            f"{len(verdict.forgotten)}",
            "killed within 2.5 s, before it had written them: run again; store_fsync = always keeps them",
        ),
        ("run twice", f"{len(verdict.run_twice)}", f"starts after the first: {again}" if again else ""),
        ("unexplained starts", f"{len(verdict.unexplained)}", "more than the store had given out"),
        ("completed without having run", f"{len(verdict.unfounded)}", "as the job itself noted it"),
        ("overlapping live copies", f"{len(verdict.overlaps)}", "two attempts of a job alive at a time"),
        ("live workers taken for dead", f"{len(verdict.taken_for_dead)}", "their jobs were given to others"),
        ("orphan processes", f"{len(report.orphans)}", "of jobs, when all had ended"),
        ("left after 3ox down", f"{len(report.left)}", "processes of any kind"),
        ("spooled and handed over", f"{verdict.spooled}", f"{verdict.out_of_order} out of order"),
        *(("attempts ended otherwise", f"{count}", reason) for reason, count in failures),
    ]


def _follow_ups(report: Report) -> list[tuple[str, str, str]]:
    found = report.follow_ups
    return [
        ("compositions sent", f"{found.compositions.total()}", _counts(found.compositions)),
        ("user jobs", f"{found.jobs.total()}", _counts(found.jobs)),
        ("follow-ups sent twice", f"{len(found.twice)}", "more than one job for a step or a callback"),
        ("follow-ups missing", f"{len(found.missing)}", "none, though what it follows has completed"),
        ("follow-ups sent early", f"{len(found.early)}", "before what it follows had completed"),
        (
            "user jobs with a wrong end",
            f"{len(found.unended)}",
            "not completed; one that has to fail: not failed",
        ),
    ]


def _times(report: Report) -> list[tuple[str, str, str]]:
    verdict = report.verdict
    longest_s = max(report.outages_s, default=0.0)
    return [
        (
            "recovery p50 / p99 / max, s",
            _spread([took_ms / 1000 for took_ms in verdict.recovery_ms]),
            f"kill of a worker to the next start of its job; {len(verdict.recovery_ms)} jobs",
        ),
        (
            "... with the store well",
            _spread([took_ms / 1000 for took_ms in verdict.recovery_well_ms]),
            f"the {len(verdict.recovery_well_ms)} with no outage in between",
        ),
        (
            "... of jobs put off, s",
            _spread([took_ms / 1000 for took_ms in verdict.put_off_ms]),
            f"{len(verdict.put_off_ms)} with which a second or third worker died: they wait on purpose",
        ),
        ("longest outage, s", f"{longest_s:.2f}", f"of {len(report.outages_s)}, as seen from outside"),
        (
            "resumed p50 / p99 / max, s",
            _spread(report.resumed_s),
            "the store's return to the next end of a job",
        ),
    ]


def _faults(report: Report) -> list[tuple[str, str, str]]:
    done = Counter(report.done)
    workers, stores = done["worker-pause"] + done["worker-freeze"], done["store-pause"] + done["store-freeze"]
    torn = ", ".join(f"{count} {what}" for what, count in report.torn.items())
    units, masters, outside = done["unit-kill"], done["master-kill"], done["3ox-worker-kill"]
    return [
        ("worker kills", f"{done['worker-kill'] + units}", f"{report.jobs_in_hand} jobs in hand"),
        (
            "unit kills",
            f"{units + masters + outside}",
            f"{units} with the worker, {masters} masters, {outside} 3ox worker",
        ),
        ("watchdog kills", f"{done['watchdog-kill']}", ""),
        ("store restarts", f"{done['store-kill']}", "SIGKILL; started again on its append-only file"),
        ("pauses", f"{workers + stores}", f"{workers} workers, {stores} store"),
        ("cuts", f"{report.cut_connections}", f"connections; messages torn: {torn}"),
        ("ingress kills", f"{done['ingress-kill']}", f"{report.ingress_ends} ends in all"),
        *([("supervisor kills", f"{done['supervisor-kill']}", "")] if done["supervisor-kill"] else []),
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{percentile(values, 50):.2f} / {percentile(values, 99):.2f} / {max(values):.2f}"
