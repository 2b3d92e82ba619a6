"""One job or one receipt in full, as text for people."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from ingress.cli.diff import changes_of
from ingress.core.terminal import print_fields, print_table
from ingress.core.text import count_of, one_line, percent, safe, since
from middleware.archive.proof import Proof
from middleware.job.records import Delivery, JobRecord, Receipt

#: Longer values are cut in the text view; --json shows them in full.
_SHOWN_MAX = 2000


def print_job(record: JobRecord, *, kept: str = "") -> None:
    """Print a job in full, with its attempts and its error.

    Args:
        record: The job.
        kept: Where the job is, if it is not in the store.
    """
    retries = "1 retry" if record.max_retries == 1 else f"{record.max_retries} retries"
    limits = f"{retries}, {record.timeout_seconds:g} s" if record.timeout_seconds else ""
    fields = [
        ("job", record.job_id),
        ("type", record.job_type),
        ("project", record.project),
        ("state", f"{record.status}, {percent(record)}% {record.progress_message}"),
        ("reason", record.reason),
        ("kept", kept),
        ("approval", record.approval),
        ("from", f"{record.actor} through {record.source}"),
        ("priority", str(record.priority)),
        ("attempt", str(record.attempt_count)),
        ("limits", limits),
        ("worker", record.worker_id),
        ("session", record.session_id),
        ("trace", record.trace_id if record.trace_id != record.job_id else None),
        ("after", ", ".join(record.depends_on)),
        ("resources", _compact(record.resources)),
        ("metadata", _compact(record.metadata)),
        ("created", _when(record.created_at)),
        ("due", record.due_at),
        ("started", _when(record.started_at)),
        ("ended", _when(record.completed_at)),
        ("took", since(record.started_at, record.completed_at) if record.started_at else None),
        ("payload", _compact(record.payload)),
        ("changes", _changes(record)),
        ("result", _compact(_without_diff(record.result))),
        *(("delivery", _delivery(item)) for item in record.deliveries),
    ]
    print_fields([(name, _cut(one_line(value))) for name, value in fields if value])
    if record.error is not None:
        error = record.error
        traceback = getattr(error, "traceback", "")
        parts = [f"{error.type}: {error.message}", error.remedy or "", traceback or ""]
        click.echo()
        print_fields([("error", safe("\n".join(part.rstrip() for part in parts if part)))])
    if record.attempts:
        click.echo()
        print_table(
            ("ATTEMPT", "WORKER", "STARTED", "TOOK", "STATE", "REASON"),
            [
                (
                    str(attempt.attempt),
                    one_line(attempt.worker_id or "-"),
                    attempt.started_at or "-",
                    since(attempt.started_at, attempt.ended_at),
                    str(attempt.status),
                    one_line(attempt.reason or ""),
                )
                for attempt in record.attempts
            ],
        )


def print_receipt(receipt: Receipt) -> None:
    """Print a receipt with every change of state."""
    fields = [
        ("receipt", receipt.receipt_id),
        ("job", receipt.job_id),
        ("type", receipt.job_type),
        ("project", receipt.project),
        ("state", str(receipt.status)),
        ("from", f"{receipt.actor} through {receipt.source}"),
        ("policy", receipt.policy),
        ("attempt", str(receipt.attempt)),
        ("worker", receipt.worker_id),
        ("trace", receipt.trace_id if receipt.trace_id != receipt.job_id else None),
        ("input", f"sha256 {receipt.input_sha256}"),
        ("result", f"sha256 {receipt.result_sha256}" if receipt.result_sha256 else None),
        ("created", receipt.created_at),
        ("updated", receipt.updated_at),
    ]
    print_fields([(name, one_line(value)) for name, value in fields if value])
    click.echo()
    print_table(
        ("AT", "STATE", "ATTEMPT", "WORKER", "REASON"),
        [
            (
                move.at,
                str(move.status),
                str(move.attempt),
                one_line(move.worker_id or "-"),
                one_line(move.reason or ""),
            )
            for move in receipt.transitions
        ],
    )


def _when(at: str | None) -> str | None:
    return None if at is None else f"{at} ({since(at)} ago)"


def _delivery(item: Delivery) -> str:
    if item.status == "completed":
        return f"{item.sink}: delivered {item.delivered_at}"
    return f"{item.sink}: undelivered, {item.status}; {item.reason}".removesuffix("; ")


def _changes(record: JobRecord) -> str | None:
    changes = changes_of(record)
    if changes is None:
        return None
    size = f"{count_of(changes['files'], 'file')}, +{changes['insertions']} -{changes['deletions']}"
    place = changes["branch"] or changes["path"]
    return f"{size}; --diff shows them" + (f"; in {place} on {changes['host']}" if place else "")


def _without_diff(result: Any) -> Any:
    """Return a result without its diff, which --diff shows."""
    return (
        {name: value for name, value in result.items() if name != "changes"}
        if isinstance(result, dict)
        else result
    )


def _compact(value: Any) -> str | None:
    if value is None or value == {}:
        return None
    return msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "… (in full with --json)"


def show_proof(proof: Proof) -> None:
    """Print whether a receipt matches the ledger."""
    if proof.first:
        click.echo(f"sealed  {proof.first} to {proof.last}, signed with {', '.join(proof.keys)}")
    if proof.ok:
        click.echo(f"OK: all {proof.transitions} state changes match the signed ledger.")
    else:
        click.echo(f"FAILED: {'; '.join(proof.faults)}.")
