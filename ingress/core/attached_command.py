"""A command that runs as a job while its caller waits, with the caller's stdin, stdout and stderr."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from ingress.core.bridge import Bridge
from ingress.core.control import cancel
from ingress.core.lookup import JobHandle
from ingress.core.standard_streams import StandardStreams
from ingress.core.terminal import note
from ingress.core.text import short_id
from ingress.core.waiting import follow_with_notes, is_waiting
from middleware.job.attachment import attached_mode
from middleware.job.records import JobRecord
from middleware.job.schema import Job
from middleware.streams.channels import attached_caller
from middleware.streams.frames import StreamId
from middleware.streams.link import Link
from middleware.streams.local import LocalCaller
from ops.errors import JobNotFound, WrongState

#: Exit status of a caller that could not pass everything on.
EXIT_LOSS = 1
_LOST_WORKER = (
    "its worker was lost after a part of its input or output had been passed on;"
    " it is not started a second time"
)


class AttachedCommand:
    """The caller's side of an attached command.

    Args:
        link: The caller's end of the streams.
        streams: Moves the bytes.
        in_store: Whether the command runs in a worker, which could lose a part.
    """

    def __init__(self, link: Link, streams: StandardStreams, *, in_store: bool) -> None:
        self._link = link
        self._streams = streams
        self._in_store = in_store

    def follow(self, bridge: Bridge, handle: JobHandle) -> JobRecord:
        """Wait for the end of the job and of its output, and return the job.

        A command whose worker was lost in the middle is cancelled: another run would repeat its output, and
        its input is used up.
        """
        for record in follow_with_notes(bridge, handle):
            if record.is_final:
                self._streams.wait_written()
                return record
            if is_waiting(record) and self._link.is_touched():
                with contextlib.suppress(JobNotFound, WrongState):
                    cancel(bridge, handle.job_id, _LOST_WORKER)
        return handle.record()

    def exit_status(self, record: JobRecord) -> int | None:
        """Return the exit status of the caller; None if the command has not finished.

        It is that of the command, unless input or output was lost, which is said on stderr.
        """
        status = command_status(record)
        closed_early = any(error.errno == errno.EPIPE for error in self._streams.failures.values())
        losses = self._losses(record)
        if losses and not (closed_early and status not in {0, None} and len(losses) == len(self._closed())):
            for loss in losses:
                note(f"job {short_id(record.job_id)}: {loss}.")
            return EXIT_LOSS
        return status

    def _closed(self) -> list[str]:
        failures = self._streams.failures.items()
        return [name for name, error in failures if error.errno == errno.EPIPE]

    def _losses(self, record: JobRecord) -> list[str]:
        losses = []
        for name, error in self._streams.failures.items():
            if name == "stdin":
                losses.append(f"stdin could not be read: {error.strerror}")
            elif error.errno == errno.EPIPE:
                losses.append(f"a part of its output was not passed on: the reader of {name} has closed it")
            else:
                losses.append(f"a part of its output was not passed on: {name}: {error.strerror}")
        if self._in_store and command_ran(record) and not losses and not self._all_received():
            losses.append(
                f"a part of its output did not arrive; '3ox logs {record.job_id}' shows what has been kept"
            )
        return losses

    def _all_received(self) -> bool:
        return all(self._link.end_received(stream) for stream in (StreamId.OUT, StreamId.ERR))


def command_status(record: JobRecord) -> int | None:
    """Return the command's exit status as a shell shows it, None if the command did not finish."""
    status = record.result.get("exit_status") if isinstance(record.result, dict) else None
    return None if status is None else int(status)


def command_ran(record: JobRecord) -> bool:
    """Return whether the command was started and has ended by itself."""
    not_started = record.error is not None and record.error.type == "CommandNotStarted"
    return command_status(record) is not None and not not_started


@contextlib.contextmanager
def attached_in_store(bridge: Bridge, job: Job, *, writes_output: bool) -> Iterator[AttachedCommand]:
    """Listen to the command of a job that is submitted within this block.

    Args:
        bridge: The bridge that will have the job.
        job: The job; ``attached_mode`` says what its caller passes on.
        writes_output: Whether its output is written, or dropped.
    """
    reads_input = attached_mode(job) == "stdin"
    with attached_caller(bridge.store, bridge.reader.keys, job.job_id, has_input=reads_input) as link:
        streams = StandardStreams(link, reads_input=reads_input, writes_output=writes_output)
        streams.start()
        try:
            yield AttachedCommand(link, streams, in_store=True)
        finally:
            streams.stop()


@contextlib.contextmanager
def attached_in_process(job: Job, *, writes_output: bool) -> Iterator[tuple[AttachedCommand, LocalCaller]]:
    """Connect the standard streams to a command that runs in this process within this block; see above."""
    reads_input = attached_mode(job) == "stdin"
    caller = LocalCaller(has_input=reads_input)
    streams = StandardStreams(caller.link, reads_input=reads_input, writes_output=writes_output)
    streams.start()
    try:
        yield AttachedCommand(caller.link, streams, in_store=False), caller
        streams.wait_written()
    finally:
        streams.stop()
