"""Commands that act on jobs or wait for them: ``wait``, ``cancel``, ``retry``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ingress.cli.shared import (
    CANCEL_WAIT_S,
    emit_json,
    exit_code_of,
    for_each,
    json_option,
    login_name,
    note,
    note_if_spooled,
    require_job_type,
    seconds_or_zero,
)
from ingress.core.text import one_line
from ingress.dispatch import cancel as ask_to_cancel
from ingress.dispatch import get_receipt, list_jobs, wait_for
from ingress.dispatch import retry as ask_to_retry
from ops.errors import JobNotFound, UsageProblem, WaitTimeout

if TYPE_CHECKING:
    from middleware.job.records import JobRecord, Receipt
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingress.cli.shared import utf8
from ingress.dispatch import approve as let_go
from ingress.dispatch import deny as refuse
from ingress.dispatch import list_approvals

if TYPE_CHECKING:
    from middleware.job.records import Receipt

_PAGE = 200


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout", metavar="S", type=seconds_or_zero, help="Give up after so long, with exit code 124."
)
@json_option
def wait(*, ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until jobs have ended.

    Exits 0 if all are completed, 1 if one failed or was cancelled, 124 if the time ran out before.
    """
    ends_at_s = None if timeout is None else time.monotonic() + timeout
    records: list[JobRecord] = []

    def wait_one(job_id: str) -> int:
        note_if_spooled(job_id)
        left_s = None if ends_at_s is None else max(0.0, ends_at_s - time.monotonic())
        record = wait_for(job_id, timeout_s=left_s)
        records.append(record)
        if not as_json:
            click.echo(_ended(record))
        return exit_code_of(record)

    code = for_each(ids, wait_one)
    if as_json:
        _emit_jobs(records)
    return code


def _ended(record: JobRecord) -> str:
    why = "" if record.status == "completed" else one_line(record.reason)
    return f"{record.job_id} {record.status} {why}".rstrip()


def _emit_jobs(records: list[JobRecord]) -> None:
    import msgspec

    emit_json({"jobs": [msgspec.Raw(record.to_json()) for record in records]})


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
def cancel(*, ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel jobs, wherever they are.

    Waits up to 5 s for running ones to end. Says "cancelled" when nothing of the job runs any more, and
    how that came about: what state it was in, or whether what it had started ended when asked to or was
    killed. Says "cancelling" if it had not ended by then (exit code 124). A job that had ended before
    stays as it was (exit code 2).
    """
    asked = {}
    outcomes: list[dict[str, str]] = []

    def ask_one(part: str) -> int:
        reply = ask_to_cancel(part, reason=f"cancelled by {login_name()}")
        asked[reply.job_id] = reply
        return 0

    code = for_each(ids, ask_one)
    ends_at_s = time.monotonic() + CANCEL_WAIT_S
    for reply in asked.values():
        status, own_code = _see_it_end(reply.job_id, reply.outcome, str(reply.status), ends_at_s)
        how = _how_it_ended(reply.job_id) if own_code == 0 else ""
        outcomes.append({"job_id": reply.job_id, "outcome": status, "how": how})
        code = own_code if code == 0 else code
        if not as_json:
            click.echo(f"{reply.job_id} {status}" + (f": {one_line(how)}" if how else ""))
    if as_json:
        emit_json({"jobs": outcomes})
    return code


def _see_it_end(job_id: str, outcome: str, status: str, ends_at_s: float) -> tuple[str, int]:
    if outcome == "cancelling":
        try:
            status = str(wait_for(job_id, timeout_s=max(0.0, ends_at_s - time.monotonic())).status)
        except WaitTimeout:
            note(f"job {job_id} has not ended yet; '3ox wait {job_id}' waits for it.")
            return "cancelling", WaitTimeout.exit_code
    if outcome == "cancelled" or status == "cancelled":
        return "cancelled", 0
    note(f"job {job_id} had ended before: {status}.")
    return status, UsageProblem.exit_code


def _how_it_ended(job_id: str) -> str:
    """Say what became of a cancelled job, by its receipt: graceful, by force, or before it had started."""
    try:
        moves = get_receipt(job_id).transitions
    except JobNotFound:
        # Deleted in the meantime.
        return ""
    before = moves[-2].status if len(moves) > 1 else ""
    if before != "processing":
        return f"it was {before}" if before else ""
    # The worker's words follow those of whoever cancelled it.
    said = moves[-1].reason.partition("; ")[2]
    return said if said else "stopped"


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All jobs that --type and --status name.")
@click.option("--type", "job_type", metavar="T", help="With --all: only jobs of this type.")
@click.option(
    "--status",
    type=click.Choice(["failed", "cancelled"]),
    help="With --all: jobs in this state; failed by default.",
)
@click.option(
    "--undelivered", is_flag=True, help="Run nothing again: only bring results to the sinks that gave up."
)
@json_option
def retry(
    *,
    ids: tuple[str, ...],
    every: bool,
    job_type: str | None,
    status: str | None,
    undelivered: bool,
    as_json: bool,
) -> int:
    """Queue failed or cancelled jobs once more.

    They keep their ids and receipts.
    """
    if undelivered and every != bool(ids) and job_type is None and status is None:
        from ingress.cli.export import retry_undelivered

        return retry_undelivered(ids, as_json=as_json)
    if undelivered or every == bool(ids):
        raise UsageProblem("retry takes job ids, or --all, and not both.", remedy="See '3ox retry --help'.")
    if not every and (job_type is not None or status is not None):
        raise UsageProblem("--type and --status go with --all.", remedy="See '3ox retry --help'.")
    if job_type is not None:
        require_job_type(job_type)
    receipts: list[Receipt] = []

    def retry_one(job_id: str) -> int:
        receipt = ask_to_retry(job_id, reason=f"retried by {login_name()}")
        receipts.append(receipt)
        if not as_json:
            click.echo(f"{receipt.job_id} {receipt.status}")
        return 0

    wanted = list(_ended_jobs("failed" if status is None else status, job_type)) if every else ids
    code = for_each(wanted, retry_one)
    if as_json:
        emit_json({"receipts": receipts})
    elif every:
        note(f"{len(receipts)} of {len(wanted)} queued once more.")
    return code


def _ended_jobs(status: str, job_type: str | None) -> Iterator[str]:
    cursor: str | None = None
    while True:
        page = list_jobs(status=status, job_type=job_type, limit=_PAGE, cursor=cursor)
        yield from (record.job_id for record in page.jobs)
        cursor = page.next
        if cursor is None:
            return


_LISTED_MAX = 200

_reason = click.option("--reason", metavar="TEXT", default="", help="Why, one sentence for the receipt.")


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_reason
@json_option
def approve(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Let jobs go on that wait for approval; without ID, list them.

    A rule of the policy ([[policy]] in 3ox.toml) holds them. Your login name stands on the receipt.
    """
    if not ids:
        return _list(as_json=as_json)
    return _decide(ids, let_go, reason, as_json=as_json)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_reason
@json_option
def deny(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Cancel jobs that wait for approval.

    Your login name stands on the receipt.
    """
    return _decide(ids, refuse, reason, as_json=as_json)


def _decide(ids: tuple[str, ...], act: Callable[..., Receipt], reason: str, *, as_json: bool) -> int:
    said = utf8(reason, "--reason")
    receipts: list[Receipt] = []

    def decide_one(part: str) -> int:
        receipt = act(part, actor=login_name(), reason=said)
        receipts.append(receipt)
        if not as_json:
            click.echo(f"{receipt.job_id} {receipt.status}")
        return 0

    code = for_each(ids, decide_one)
    if as_json:
        emit_json({"receipts": receipts})
    return code


def _list(*, as_json: bool) -> int:
    import msgspec

    waiting = list_approvals(_LISTED_MAX)
    if as_json:
        emit_json({"jobs": [msgspec.Raw(record.to_json()) for record in waiting]})
        return 0
    if not waiting:
        click.echo("No job waits for approval.")
        return 0
    from ingress.core.text import one_line, print_table, since

    print_table(
        ("JOB", "TYPE", "FROM", "WAITS", "WHAT"),
        [
            (
                record.job_id,
                record.job_type,
                f"{one_line(record.actor)} through {record.source}" if record.actor else record.source,
                since(record.created_at),
                one_line(msgspec.json.encode(record.payload).decode()),
            )
            for record in waiting
        ],
    )
    return 0


COMMANDS = [wait, cancel, retry, approve, deny]
