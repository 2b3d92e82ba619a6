"""What the bot says of jobs: while they run, when they have ended, and in lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ingress.core.status_report import QUEUE_STATES
from ingress.core.text import count_of, duration, kind, seconds_between, short_id, summary_line, what, why
from ingress.telegram.message_text import head, tail, units

if TYPE_CHECKING:
    from middleware.job.records import JobPage, JobRecord

#: Job types whose result is a text that stands for itself.
_ANSWERING = {"ask", "telegram"}
_SHOWN_UNITS = 3500


def working(job_id: str) -> str:
    """Say that a job is under way."""
    return f"working… ({short_id(job_id)})"


def spooled(job_id: str) -> str:
    """Say that a job has been accepted, but waits on disk."""
    return (
        "The store is away. Your message is spooled: it is carried out when the store is back, and the"
        f" answer comes here. ({short_id(job_id)})"
    )


def waiting(record: JobRecord) -> str:
    """Say why a job has not begun."""
    if record.status == "held":
        return f"held: {record.reason} ({short_id(record.job_id)})"
    return working(record.job_id)


def growing(record: JobRecord, output: str) -> str:
    """Show how far a running job has come."""
    line = working(record.job_id)
    if record.progress > 0 or record.progress_message:
        line = f"{line} {record.progress:.0f}% {record.progress_message}".rstrip()
    if record.job_type in _ANSWERING:
        return f"{head(output.strip(), _SHOWN_UNITS)} …" if output.strip() else line
    return f"{line}\n{tail(output.rstrip(), _SHOWN_UNITS)}".rstrip()


def outcome(record: JobRecord) -> str:
    """Say what became of a job that has ended."""
    ident = short_id(record.job_id)
    if record.status == "completed":
        text = _result_text(record)
        if record.job_type in _ANSWERING:
            return text if text.strip() else "(The answer is empty.)"
        return f"{kind(record)} {ident} is done.\n{text}".rstrip()
    if record.status == "cancelled":
        return f"{ident} was cancelled: {record.reason}"
    said = record.reason
    if record.error is not None:
        said = f"{record.error.message} {record.error.remedy}".strip()
    printed = _result_text(record)
    return f"{ident} failed: {said}\n{printed}".rstrip()


def _result_text(record: JobRecord) -> str:
    result = record.result
    if not isinstance(result, dict):
        return ""
    if isinstance(result.get("text"), str):
        return str(result["text"])
    tails = [str(result.get(name, "")).strip() for name in ("stdout_tail", "stderr_tail")]
    return "\n".join(text for text in tails if text)


def one_job(record: JobRecord) -> str:
    """Describe a job in full."""
    ran_s = seconds_between(record.started_at, record.completed_at)
    rows = [
        ("job", record.job_id),
        ("type", kind(record)),
        ("status", record.status),
        ("why", why(record)),
        ("progress", "" if record.is_final else f"{record.progress:.0f}%"),
        ("from", f"{record.source} {record.actor}".strip()),
        ("created", record.created_at or ""),
        ("took" if record.is_final else "runs for", "" if ran_s is None else duration(ran_s)),
        ("attempt", str(record.attempt) if record.attempt > 1 else ""),
        ("asked", what(record)),
    ]
    text = "\n".join(f"{name}: {value}" for name, value in rows if value)
    if not record.is_final:
        return text
    ending = outcome(record)
    room = _SHOWN_UNITS - units(text)
    return f"{text}\n\n{head(ending, room)}{'…' if units(ending) > room else ''}"


def job_list(page: JobPage) -> str:
    """Give a line for each job of a page, and the counts."""
    lines = [summary_line(page.summary)]
    for record in page.jobs:
        age_s = seconds_between(record.created_at)
        age = "" if age_s is None else duration(age_s)
        lines.append(
            f"{short_id(record.job_id)} {record.status} {kind(record)} {age} {what(record)}".rstrip()
        )
    return "\n".join(lines if page.jobs else [*lines, "There are no jobs."])


def bridge_state(state: Mapping[str, Any]) -> str:
    """Give the state of the bridge in a few lines."""
    queue, workers = state["queue"], state["workers"]
    sound = sum(1 for worker in workers if worker["healthy"])
    daemons = [
        f"{daemon['name']}{'' if daemon['healthy'] else ' (not healthy)'}" for daemon in state["daemons"]
    ]
    running = sum(len(worker["processing"]) for worker in workers)
    return "\n".join(
        [
            f"store: healthy, {state['store']['latency_ms']:.1f} ms",
            "queue: " + ", ".join(f"{queue[name]} {name}" for name in QUEUE_STATES),
            f"workers: {sound} of {len(workers)} healthy, {count_of(running, 'job')} running",
            f"daemons: {', '.join(daemons) if daemons else 'none'}",
            f"spool: {count_of(state['spool']['jobs'], 'job')}",
        ]
    )
