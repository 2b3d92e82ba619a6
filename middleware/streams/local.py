"""The two ends of attached streams within one process, for a command that runs without a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from middleware.job.base import Job
from middleware.streams.attached import Attached
from middleware.streams.channels import CallerEnd, greet, worker_link
from middleware.streams.frames import Frame, Kind
from middleware.streams.link import Link, Transport


class LocalTransport:
    """Takes messages to a link of this process.

    Args:
        link: Of the other end.
        on_frame: Takes the frames that are not about the streams.
    """

    def __init__(self, link: Link, on_frame: Callable[[Frame], None]) -> None:
        self._link = link
        self._on_frame = on_frame

    def send(self, messages: Sequence[bytes]) -> int:
        """See ``middleware.streams.link.Transport``."""
        for message in messages:
            frame = self._link.handle(message)
            if frame is not None:
                self._on_frame(frame)
        return 1


class LocalCaller:
    """A caller whose command runs in the same process.

    Args:
        has_input: Whether stdin is passed on.

    Attributes:
        link: Its end of the streams.
    """

    def __init__(self, *, has_input: bool) -> None:
        self._has_input = has_input
        self._end = CallerEnd(self._connect, has_input=has_input)
        self._worker: Link | None = None
        self._answers: list[Kind] = []
        self.link = self._end.link

    def _connect(self, channel: str) -> Transport:
        if self._worker is None:
            raise LookupError(f"no command listens on {channel!r}")
        return LocalTransport(self._worker, self._on_answer)

    def _on_answer(self, frame: Frame) -> None:
        self._answers.append(frame.kind)
        if self._worker is not None:
            self._worker.wake()

    @contextlib.contextmanager
    def attach(self, job: Job, until: Callable[[], bool]) -> Iterator[Attached]:
        """Connect the command of a job; see ``middleware.streams.attached.Attach``."""
        worker = self._worker = worker_link(has_input=self._has_input)
        worker.transport = LocalTransport(self.link, self._end.on_frame)
        self.link.start("streams-caller")
        worker.start("streams-command")
        try:
            greet(worker, job.job_id, self._answers, until)
            yield Attached(worker, has_input=self._has_input)
        finally:
            worker.stop()
