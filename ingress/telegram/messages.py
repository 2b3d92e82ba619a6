"""Texts of the bot about jobs: in progress, outcome, details, lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingress.core.status_report import QUEUE_STATES
from ingress.core.text import (
    count_of,
    duration,
    kind,
    percent,
    seconds_between,
    short_id,
    summary_line,
    what,
    why,
)
from ingress.telegram.message_text import head, tail, units
from middleware.job.records import JobPage, JobRecord
from middleware.job.texts import is_answer, result_text

_SHOWN_UNITS = 3500


def working(job_id: str) -> str:
    """Return the first text of a reply, while its job is queued or running."""
    return f"working… ({short_id(job_id)})"


def spooled(job_id: str) -> str:
    """Return the first text of a reply whose job is in the spool."""
    return (
        "The store is unavailable. Your message is spooled and will be processed when the store is back; the"
        f" answer will appear here. ({short_id(job_id)})"
    )


def waiting(record: JobRecord) -> str:
    """Return the text for a job that has not started."""
    if record.status == "held":
        return f"held: {record.reason} ({short_id(record.job_id)})"
    return working(record.job_id)


def growing(record: JobRecord, output: str) -> str:
    """Return the text for a running job: its output so far, or its progress."""
    line = working(record.job_id)
    if record.progress > 0 or record.progress_message:
        line = f"{line} {percent(record)}% {record.progress_message}".rstrip()
    if is_answer(record):
        return f"{head(output.strip(), _SHOWN_UNITS)} …" if output.strip() else line
    return f"{line}\n{tail(output.rstrip(), _SHOWN_UNITS)}".rstrip()


def outcome(record: JobRecord) -> str:
    """Return the text for a finished job."""
    ident = short_id(record.job_id)
    if record.status == "completed":
        text = result_text(record)
        if is_answer(record):
            return text if text.strip() else "(The answer is empty.)"
        return f"{kind(record)} {ident} completed.\n{text}".rstrip()
    if record.status == "cancelled":
        return f"{ident} was cancelled: {record.reason}"
    reason = record.reason
    if record.error is not None:
        reason = f"{record.error.message} {record.error.remedy}".strip()
    return f"{ident} failed: {reason}\n{result_text(record)}".rstrip()


def one_job(record: JobRecord) -> str:
    """Return all details of a job."""
    ran_s = seconds_between(record.started_at, record.completed_at)
    rows = [
        ("job", record.job_id),
        ("type", kind(record)),
        ("status", record.status),
        ("reason", why(record)),
        ("progress", "" if record.is_final else f"{percent(record)}%"),
        ("source", f"{record.source} {record.actor}".strip()),
        ("created", record.created_at or ""),
        ("took" if record.is_final else "running for", "" if ran_s is None else duration(ran_s)),
        ("attempt", str(record.attempt_count) if record.attempt > 1 else ""),
        ("summary", what(record)),
    ]
    text = "\n".join(f"{name}: {value}" for name, value in rows if value)
    if not record.is_final:
        return text
    result = outcome(record)
    room = _SHOWN_UNITS - units(text)
    return f"{text}\n\n{head(result, room)}{'…' if units(result) > room else ''}"


def job_list(page: JobPage) -> str:
    """Return the counts and one line for each job of a page."""
    lines = [summary_line(page.summary)]
    for record in page.jobs:
        age_s = seconds_between(record.created_at)
        age = "" if age_s is None else duration(age_s)
        lines.append(
            f"{short_id(record.job_id)} {record.status} {kind(record)} {age} {what(record)}".rstrip()
        )
    return "\n".join(lines if page.jobs else [*lines, "No jobs."])


def bridge_state(state: Mapping[str, Any]) -> str:
    """Return the state of the bridge in a few lines."""
    queue, workers = state["queue"], state["workers"]
    healthy = sum(1 for worker in workers if worker["healthy"])
    daemons = [
        f"{daemon['name']}{'' if daemon['healthy'] else ' (not healthy)'}" for daemon in state["daemons"]
    ]
    running = sum(len(worker["processing"]) for worker in workers)
    return "\n".join(
        [
            f"store: healthy, {state['store']['latency_ms']:.1f} ms",
            "queue: " + ", ".join(f"{queue[name]} {name}" for name in QUEUE_STATES),
            f"workers: {healthy} of {len(workers)} healthy, {count_of(running, 'job')} running",
            f"daemons: {', '.join(daemons) if daemons else 'none'}",
            f"spool: {count_of(state['spool']['jobs'], 'job')}",
        ]
    )
