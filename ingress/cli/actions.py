"""Commands that act on jobs or wait for them: ``wait``, ``cancel``, ``retry``, ``approve``, ``deny``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import click
import msgspec

from ingress.cli.export import retry_undelivered
from ingress.cli.shared import (
    ValueType,
    emit_jobs,
    for_each,
    json_option,
    note_if_spooled,
    require_job_type,
)
from ingress.cli.submit_options import seconds_or_zero
from ingress.core import control
from ingress.core.bridge import Bridge, current_bridge
from ingress.core.local_user import login_name, utf8
from ingress.core.lookup import JobHandle, find
from ingress.core.run_and_follow import CANCEL_WAIT_S, exit_code_of
from ingress.core.terminal import emit_json, note, print_table
from ingress.core.text import one_line, since
from ingress.core.waiting import follow_with_notes
from middleware.job.records import JobRecord, Receipt
from ops.errors import JobNotFound, UsageProblem, WaitTimeout

_PAGE = 200
_APPROVALS_MAX = 200


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout",
    metavar="S",
    type=ValueType(seconds_or_zero),
    help="Stop waiting after this many seconds, with exit code 124.",
)
@json_option
def wait(*, ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until jobs have ended.

    Exits 0 if all completed, 1 if one failed or was cancelled, 124 if the time ran out.
    """
    ends_at_s = None if timeout is None else time.monotonic() + timeout
    records: list[JobRecord] = []
    said: set[str] = set()

    def wait_one(part: str) -> int:
        job = find(current_bridge(), part)
        note_if_spooled(job)
        left_s = None if ends_at_s is None else max(0.0, ends_at_s - time.monotonic())
        *_, record = follow_with_notes(current_bridge(), job, timeout_s=left_s, said=said)
        records.append(record)
        if not as_json:
            click.echo(_end_of(record))
        return exit_code_of(record)

    code = for_each(ids, wait_one)
    if as_json:
        emit_jobs(records)
    return code


def _end_of(record: JobRecord) -> str:
    why = "" if record.status == "completed" else one_line(record.reason)
    return f"{record.job_id} {record.status} {why}".rstrip()


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
def cancel(*, ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel jobs in any state.

    Waits up to 5 s for running jobs to stop. Prints "cancelled" with the state the job was in, or with how
    its process ended (when asked, or killed); prints "cancelling" if it still runs after 5 s (exit code 124).
    A job that has already finished is not changed (exit code 2).
    """
    bridge = current_bridge()
    replies: dict[str, control.CancelReply] = {}
    outcomes: list[dict[str, str]] = []

    def cancel_one(part: str) -> int:
        reply = control.cancel(bridge, part, f"cancelled by {login_name()}")
        replies[reply.job_id] = reply
        return 0

    code = for_each(ids, cancel_one)
    ends_at_s = time.monotonic() + CANCEL_WAIT_S
    for reply in replies.values():
        job = JobHandle(bridge, reply.job_id)
        status, own_code = _await_cancellation(job, reply, ends_at_s)
        how = _how_it_stopped(job) if own_code == 0 else ""
        outcomes.append({"job_id": job.job_id, "outcome": status, "how": how})
        code = own_code if code == 0 else code
        if not as_json:
            click.echo(f"{job.job_id} {status}" + (f": {one_line(how)}" if how else ""))
    if as_json:
        emit_json({"jobs": outcomes})
    return code


def _await_cancellation(job: JobHandle, reply: control.CancelReply, ends_at_s: float) -> tuple[str, int]:
    """Return the state of a job that is being cancelled when it has stopped, and the exit code."""
    status = reply.status
    if reply.outcome == "cancelling":
        try:
            status = str(job.wait(timeout_s=max(0.0, ends_at_s - time.monotonic())).status)
        except WaitTimeout:
            note(f"job {job.job_id} is still running; '3ox wait {job.job_id}' waits for it.")
            return "cancelling", WaitTimeout.exit_code
    if reply.outcome == "cancelled" or status == "cancelled":
        return "cancelled", 0
    note(f"job {job.job_id} has already finished ({status}).")
    return status, UsageProblem.exit_code


def _how_it_stopped(job: JobHandle) -> str:
    """Return from a cancelled job's receipt how it stopped: before it started, when asked, or killed."""
    try:
        moves = job.receipt().transitions
    except JobNotFound:
        # Deleted in the meantime.
        return ""
    before = moves[-2].status if len(moves) > 1 else ""
    if before != "processing":
        return f"it was {before}" if before else ""
    # The worker's reason follows the reason of the cancellation.
    reason = moves[-1].reason.partition("; ")[2]
    return reason if reason else "stopped"


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Retry all jobs that match --type and --status.")
@click.option("--type", "job_type", metavar="T", help="With --all: only jobs of this type.")
@click.option(
    "--status",
    type=click.Choice(["failed", "cancelled"]),
    help="With --all: only jobs in this state; failed by default.",
)
@click.option("--undelivered", is_flag=True, help="Redeliver results only; do not run the jobs again.")
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
    """Queue failed or cancelled jobs again.

    They keep their IDs and receipts.
    """
    if undelivered and every != bool(ids) and job_type is None and status is None:
        return retry_undelivered(ids, as_json=as_json)
    if undelivered or every == bool(ids):
        raise UsageProblem("Give job IDs, or --all, but not both.", remedy="See '3ox retry --help'.")
    if not every and (job_type is not None or status is not None):
        raise UsageProblem("--type and --status need --all.", remedy="See '3ox retry --help'.")
    if job_type is not None:
        require_job_type(job_type)
    bridge = current_bridge()
    receipts: list[Receipt] = []

    def retry_one(part: str) -> int:
        receipt = control.retry(bridge, part, f"retried by {login_name()}")
        receipts.append(receipt)
        if not as_json:
            click.echo(f"{receipt.job_id} {receipt.status}")
        return 0

    wanted = (
        list(_ids_in_state(bridge, "failed" if status is None else status, job_type)) if every else list(ids)
    )
    code = for_each(wanted, retry_one)
    if as_json:
        emit_json({"receipts": receipts})
    elif every:
        note(f"{len(receipts)} of {len(wanted)} queued again.")
    return code


def _ids_in_state(bridge: Bridge, status: str, job_type: str | None) -> Iterator[str]:
    cursor: str | None = None
    while True:
        page = bridge.reader.page(status=status, job_type=job_type, limit=_PAGE, cursor=cursor)
        yield from (record.job_id for record in page.jobs)
        cursor = page.next
        if cursor is None:
            return


_reason = click.option("--reason", metavar="TEXT", default="", help="Reason, kept on the receipt.")


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_reason
@json_option
def approve(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Approve jobs that wait for approval; without ID, list them.

    A policy rule ([[policy]] in 3ox.toml) holds them. Your login name is recorded on the receipt.
    """
    if not ids:
        return _list_approvals(as_json=as_json)
    return _decide(ids, control.approve, reason, as_json=as_json)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_reason
@json_option
def deny(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Cancel jobs that wait for approval.

    Your login name is recorded on the receipt.
    """
    return _decide(ids, control.deny, reason, as_json=as_json)


def _decide(
    ids: tuple[str, ...], act: Callable[[Bridge, str, str, str], Receipt], reason: str, *, as_json: bool
) -> int:
    why = utf8(reason, "--reason")
    receipts: list[Receipt] = []

    def decide_one(part: str) -> int:
        receipt = act(current_bridge(), part, login_name(), why)
        receipts.append(receipt)
        if not as_json:
            click.echo(f"{receipt.job_id} {receipt.status}")
        return 0

    code = for_each(ids, decide_one)
    if as_json:
        emit_json({"receipts": receipts})
    return code


def _list_approvals(*, as_json: bool) -> int:
    waiting = control.list_approvals(current_bridge(), _APPROVALS_MAX)
    if as_json:
        emit_jobs(waiting)
    elif not waiting:
        click.echo("No job is waiting for approval.")
    else:
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
