"""Run a job from a terminal: submit it and stream its output, or run it in this process without a store."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import msgspec

from ingress.core.attached_command import EXIT_LOSS, attached_in_process, attached_in_store
from ingress.core.bridge import Bridge, current_bridge
from ingress.core.control import cancel
from ingress.core.job_output import LocalReporter, OutputWriter
from ingress.core.local_user import login_name
from ingress.core.lookup import JobHandle
from ingress.core.terminal import emit_json, note
from ingress.core.text import short_id
from ingress.core.waiting import waiting_notes
from middleware.job.attachment import attached_mode
from middleware.job.records import JobRecord, OutputChunk
from middleware.job.schema import Job
from ops.errors import BridgeError, JobNotFound, StoreUnreachable, WaitTimeout

#: How long a cancelled job is waited for, in seconds; the kill grace is 2 s by default.
CANCEL_WAIT_S = 5.0
#: 128 + SIGPIPE: the command wrote to a closed pipe.
EXIT_SIGPIPE = 141
_COMMAND_FAILED = "CommandFailed"


class Terminated(KeyboardInterrupt):
    """A signal other than SIGINT that ends this command as Ctrl-C does.

    Attributes:
        signal_number: The signal.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal_number)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within this block SIGTERM and SIGHUP interrupt like Ctrl-C, so that the job is cancelled."""

    def end(signal_number: int, frame: FrameType | None) -> None:
        del frame
        raise Terminated(signal_number)

    kinds = [kind for kind in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(kind) is signal.SIG_DFL]
    for kind in kinds:
        signal.signal(kind, end)
    try:
        yield
    finally:
        for kind in kinds:
            signal.signal(kind, signal.SIG_DFL)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How a job is followed.

    Attributes:
        as_json: Print the finished job as one JSON document, and nothing else.
        line: Printed first, once the job is accepted.
        ends_line: End the output with a line end.
        cancels: Ctrl-C cancels the job; otherwise the job goes on.
        prints_result: Print what the job returned after its output: a text as it is, anything else as JSON.
    """

    as_json: bool = False
    line: str = ""
    ends_line: bool = False
    cancels: bool = True
    prints_result: bool = False


def run_and_follow(job: Job, mode: Mode) -> int:
    """Submit a job, stream its output and return the exit code; run it in this process without a store.

    Args:
        job: The job.
        mode: How it is followed.

    Raises:
        StoreUnreachable: The store became unavailable after the job was sent to it.
    """
    bridge = current_bridge()
    with signals_interrupt():
        unreachable = _ping(bridge)
        if unreachable is None:
            record, status = _through_the_store(bridge, job, mode)
        else:
            record, status = _in_this_process(bridge, job, mode, unreachable)
    if mode.prints_result and not mode.as_json and record.status == "completed":
        _print_result(record)
    if status is None or _needs_explanation(record, status):
        explain(record)
    return exit_code_of(record) if status is None else status


def _needs_explanation(record: JobRecord, status: int) -> bool:
    """Return whether the exit status of a command does not say enough."""
    if status in {EXIT_SIGPIPE, EXIT_LOSS}:
        return False  # the reader of its output has seen enough, or the loss has been reported
    return (record.error is not None and record.error.type != _COMMAND_FAILED) or _has_signal(record)


def _has_signal(record: JobRecord) -> bool:
    return isinstance(record.result, dict) and record.result.get("signal") is not None


def exit_code_of(record: JobRecord) -> int:
    """Return 0 for a completed job and 1 for any other."""
    return 0 if record.status == "completed" else 1


def explain(record: JobRecord) -> None:
    """Write to stderr why a job failed or was cancelled; nothing for any other job."""
    if record.error is not None:
        why = f"{record.error.message} {record.error.remedy}".strip()
    elif record.status == "cancelled":
        why = record.reason
    else:
        return
    note(f"job {short_id(record.job_id)} {record.status}: {why}")


def _ping(bridge: Bridge) -> StoreUnreachable | None:
    """Return the error of a store that is unavailable.

    The store is asked before the job is sent: one that accepts a job without an answer would run it as well.
    """
    try:
        bridge.store.call("PING")
    except StoreUnreachable as error:
        return error
    return None


def _through_the_store(bridge: Bridge, job: Job, mode: Mode) -> tuple[JobRecord, int | None]:
    """Return the finished job and the exit status of its command, if it is one and has finished."""
    handle = JobHandle(bridge, job.job_id)
    is_sent = False
    with contextlib.ExitStack() as stack:
        try:
            command = None
            if attached_mode(job) is not None:
                attached = attached_in_store(bridge, job, writes_output=not mode.as_json)
                command = stack.enter_context(attached)
            is_sent = True
            bridge.submit(job)
            if mode.line and not mode.as_json:
                _print_line(mode.line)
            if command is not None:
                record = command.follow(bridge, handle)
            else:
                with waiting_notes(bridge, handle):
                    _stream(handle, mode)
                record = handle.record()
        except (KeyboardInterrupt, BrokenPipeError):
            if mode.cancels:
                _cancel(bridge, handle)
            else:
                note(
                    f"job {job.job_id} goes on: '3ox logs {job.job_id} -f' follows it, '3ox cancel' stops it."
                )
            raise
        except StoreUnreachable as error:
            if not is_sent:
                raise
            hint = f"The job may still run; check '3ox jobs {job.job_id}' when the store is available again."
            raise StoreUnreachable(error.message, remedy=hint) from error
    if mode.as_json:
        emit_json(record.to_json())
    return record, None if command is None else command.exit_status(record)


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_result(record: JobRecord) -> None:
    result = record.result
    if result is None:
        return
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    writer = OutputWriter(raw=False)
    writer.write(OutputChunk("", "out", text))
    writer.end_line()


def _stream(handle: JobHandle, mode: Mode) -> None:
    writer = OutputWriter(raw=False)
    for chunk in handle.output(follow=True):
        if not mode.as_json:
            writer.write(chunk)
    if mode.ends_line:
        writer.end_line()


def _in_this_process(
    bridge: Bridge, job: Job, mode: Mode, unreachable: StoreUnreachable
) -> tuple[JobRecord, int | None]:
    """Run the job here; see ``_through_the_store``."""
    from actors.in_process import run_in_process  # loads dramatiq and the actors

    job = bridge.admission.prepare_in_process(job)
    note(f"{unreachable.message} The job runs in this process.")
    if mode.line and not mode.as_json:
        _print_line(mode.line)
    status = None
    if attached_mode(job) is not None:
        with attached_in_process(job, writes_output=not mode.as_json) as (command, caller):
            record, receipt = run_in_process(job, bridge.loaded, LocalReporter(None), caller.attach)
        status = command.exit_status(record)
    else:
        reporter = LocalReporter(None if mode.as_json else OutputWriter(raw=False))
        record, receipt = run_in_process(job, bridge.loaded, reporter)
        if mode.ends_line and not mode.as_json:
            reporter.end_line()
    if mode.as_json:
        # No store keeps the receipt, so it is printed with the job.
        emit_json({**msgspec.to_builtins(record), "receipt": receipt})
    if record.status == "cancelled":
        explain(record)
        raise KeyboardInterrupt
    return record, status


def _cancel(bridge: Bridge, handle: JobHandle) -> None:
    try:
        outcome = cancel(bridge, handle.job_id, f"cancelled by {login_name()} with Ctrl-C").outcome
        if outcome == "cancelling":
            outcome = str(handle.wait(timeout_s=CANCEL_WAIT_S).status)
        note(f"job {short_id(handle.job_id)} {outcome}.")
    except JobNotFound:
        note("the job had not been submitted yet.")
    except WaitTimeout:
        note(f"job {handle.job_id} is still being cancelled; '3ox wait {handle.job_id}' waits for it.")
    except BridgeError as error:
        note(f"job {handle.job_id} could not be cancelled: {error}")
