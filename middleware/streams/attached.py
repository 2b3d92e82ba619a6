"""What a command that is attached to its caller sees of it: stdin, stdout and stderr, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from middleware.job.base import Job
from middleware.job.records import StreamName
from middleware.streams.frames import StreamId
from middleware.streams.link import Link

OUTPUTS: dict[StreamName, StreamId] = {"out": StreamId.OUT, "err": StreamId.ERR}


class Attached:
    """The worker's end of the streams of one command.

    Args:
        link: Connected to the caller.
        has_input: Whether the caller passes its stdin on.

    Attributes:
        has_input: The same.
    """

    def __init__(self, link: Link, *, has_input: bool) -> None:
        self._link = link
        self.has_input = has_input

    @property
    def is_gone(self) -> bool:
        """Whether the caller no longer listens."""
        return self._link.gone

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` from another thread whenever something may have changed."""
        self._link.on_change(listener)

    def room(self, stream: StreamName) -> int:
        """Return how many bytes ``write`` takes now; 0 while the caller is slower than the command."""
        return self._link.room(OUTPUTS[stream])

    def write(self, stream: StreamName, data: bytes) -> None:
        """Pass bytes on, at most ``room``."""
        self._link.write(OUTPUTS[stream], data)

    def is_closed(self, stream: StreamName) -> bool:
        """Return whether the caller takes no more of a stream, because its own reader has closed it."""
        return self._link.is_closed(OUTPUTS[stream])

    def peek_input(self) -> memoryview:
        """Return the next bytes of stdin; empty if none are there."""
        return self._link.peek(StreamId.IN)

    def take_input(self, size: int) -> None:
        """Remove bytes from the front of ``peek_input``."""
        self._link.take(StreamId.IN, size)

    @property
    def input_ended(self) -> bool:
        """Whether stdin has ended and all of it has been taken."""
        return self._link.has_ended(StreamId.IN)

    def close_input(self) -> None:
        """Take no more of stdin; the caller stops reading its own."""
        self._link.close(StreamId.IN)

    def finish(self, *, until: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """End the output and wait until the caller has received it; return whether it has.

        Args:
            until: Returns whether to wait no longer, for instance because the job was cancelled.
            timeout_s: Limit of the wait, in seconds.
        """
        for stream in OUTPUTS.values():
            self._link.end(stream)
        self._link.wait(lambda: self._link.is_complete() or self._link.gone or until(), timeout_s)
        return self._link.is_complete()

    def wake(self) -> None:
        """Have ``finish`` ask ``until`` again."""
        self._link.wake()


class Attach(Protocol):
    """Connects a command to its caller."""

    def __call__(self, job: Job, until: Callable[[], bool]) -> AbstractContextManager[Attached]:
        """Return the connected streams for the time of a block.

        Args:
            job: The job.
            until: Returns whether to give up.

        Raises:
            JobRefused: The command must not run, because an earlier run of it has passed on a part.
        """
