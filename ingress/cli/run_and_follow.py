"""A job as seen from a terminal: hand it in, stream its output, or run it here if there is no store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ingress.cli.output import LocalReporter, OutputWriter
from ingress.cli.shared import (
    CANCEL_WAIT_S,
    emit_json,
    exit_code_of,
    explain,
    login_name,
    note,
    signals_interrupt,
)
from ingress.core.text import short_id
from ingress.dispatch import (
    Bridge,
    bridge_status,
    cancel,
    current_bridge,
    get_job,
    read_output,
    submit,
    wait_for,
)
from ops.errors import BridgeError, JobNotFound, StoreUnreachable, WaitTimeout

if TYPE_CHECKING:
    from middleware.job.records import JobRecord
    from middleware.job.schema import Job


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How a job's end is waited for.

    Attributes:
        as_json: Print the job as one JSON document at the end, and nothing else.
        line: Printed first, once the job is accepted.
        command: The job is the user's own command: its output goes to the terminal as it is, and its exit
            status becomes ours and speaks for itself.
        ends_line: See to it that the output ends with a line end.
        ends_with_us: Ctrl-C cancels the job; otherwise it goes on.
    """

    as_json: bool = False
    line: str = ""
    command: bool = False
    ends_line: bool = False
    ends_with_us: bool = True


def carry_out(job: Job, mode: Mode) -> int:
    """Hand a job in, follow it to its end and give our exit code; run it here if there is no store.

    Args:
        job: What to do.
        mode: How its end is waited for.

    Raises:
        StoreUnreachable: The store went away after it was offered the job.
    """
    bridge = current_bridge()
    with signals_interrupt():
        away = _missing_store(bridge)
        record = _through_the_store(job, mode) if away is None else _here(job, mode, bridge, away)
    status = _command_status(record) if mode.command else None
    if status is None or record.result.get("signal") is not None:
        explain(record)
    return exit_code_of(record) if status is None else status


def _command_status(record: JobRecord) -> int | None:
    """Give the command's exit status as a shell shows it, None if it did not come to its end."""
    status = record.result.get("exit_status") if isinstance(record.result, dict) else None
    return None if status is None else int(status)


def _missing_store(bridge: Bridge) -> StoreUnreachable | None:
    """Ask before the job is sent: a store that took it without an answer would run it a second time."""
    try:
        bridge.store.call("PING")
    except StoreUnreachable as error:
        return error
    return None


def _through_the_store(job: Job, mode: Mode) -> JobRecord:
    try:
        submit(job)
        if mode.line and not mode.as_json:
            click.echo(mode.line)
        _mention_idle_bridge()
        _stream(job.job_id, mode)
        record = get_job(job.job_id)
    except (KeyboardInterrupt, BrokenPipeError):
        if mode.ends_with_us:
            _cancel(job.job_id)
        else:
            note(f"job {job.job_id} goes on; '3ox logs {job.job_id} -f' follows it, '3ox cancel' ends it.")
        raise
    except StoreUnreachable as error:
        hint = f"The job may go on; look with '3ox jobs {job.job_id}' when the store is back."
        raise StoreUnreachable(error.message, remedy=hint) from error
    if mode.as_json:
        emit_json(record.to_json())
    return record


def _mention_idle_bridge() -> None:
    if not any(worker["healthy"] for worker in bridge_status()["workers"]):
        note("no worker is running; the job waits until '3ox up' or '3ox worker' starts one.")


def _stream(job_id: str, mode: Mode) -> None:
    writer = OutputWriter(raw=mode.command)
    for chunk in read_output(job_id, follow=True):
        if not mode.as_json:
            writer.write(chunk)
    if mode.ends_line:
        writer.end_line()


def _here(job: Job, mode: Mode, bridge: Bridge, away: StoreUnreachable) -> JobRecord:
    import msgspec

    from actors.in_process import run_in_process

    job = bridge.admission.prepare_in_process(job)
    note(f"{away.message} The job runs in this process.")
    if mode.line and not mode.as_json:
        click.echo(mode.line)
    reporter = LocalReporter(None if mode.as_json else OutputWriter(raw=mode.command))
    record, receipt = run_in_process(job, bridge.loaded, reporter)
    if mode.as_json:
        # There is no store that could be asked for the receipt later.
        emit_json({**msgspec.to_builtins(record), "receipt": receipt})
    elif mode.ends_line:
        reporter.end_line()
    if record.status == "cancelled":
        explain(record)
        raise KeyboardInterrupt
    return record


def _cancel(job_id: str) -> None:
    try:
        outcome = cancel(job_id, reason=f"cancelled by {login_name()} with Ctrl-C").outcome
        if outcome == "cancelling":
            outcome = str(wait_for(job_id, timeout_s=CANCEL_WAIT_S).status)
        note(f"job {short_id(job_id)} {outcome}.")
    except JobNotFound:
        note("the job had not been handed in yet.")
    except WaitTimeout:
        note(f"job {job_id} is still being cancelled; '3ox jobs {job_id}' shows when it has ended.")
    except BridgeError as error:
        note(f"job {job_id} could not be cancelled: {error}")
