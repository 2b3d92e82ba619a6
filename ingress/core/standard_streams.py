"""Pass the standard streams of this process on to a command that runs elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import threading
from collections.abc import Callable

from ingress.core.stdin import descriptor_of
from middleware.streams.frames import StreamId
from middleware.streams.link import CHUNK_BYTES, Link

_NAMES = {StreamId.IN: "stdin", StreamId.OUT: "stdout", StreamId.ERR: "stderr"}
#: How long the end of this process waits for a thread that reads or writes.
_STOP_S = 1.0


class StandardStreams:
    """Moves bytes between the standard streams of this process and a link, one thread for each stream.

    Args:
        link: The caller's end of the streams of a command.
        reads_input: Whether stdin is passed on.
        writes_output: Whether the output is written; otherwise it is dropped.

    Attributes:
        failures: Why a stream could not be passed on, by its name.
    """

    def __init__(self, link: Link, *, reads_input: bool, writes_output: bool = True) -> None:
        self._link = link
        self._reads_input = reads_input
        self._writes_output = writes_output
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._wake_fd = self._woken_fd = -1
        self.failures: dict[str, OSError] = {}

    def start(self) -> None:
        """Start the threads."""
        self._woken_fd, self._wake_fd = os.pipe()
        # Those that the process began with: one that was closed may have a substitute by now.
        for stream, standard in ((StreamId.OUT, sys.__stdout__), (StreamId.ERR, sys.__stderr__)):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                standard.flush()  # type: ignore[union-attr]
            self._start(self._write, stream, descriptor_of(standard))
        if self._reads_input:
            self._start(self._read, StreamId.IN, descriptor_of(sys.__stdin__))

    def _start(self, run: Callable[[StreamId, int | None], None], stream: StreamId, fd: int | None) -> None:
        thread = threading.Thread(target=run, args=(stream, fd), name=_NAMES[stream], daemon=True)
        thread.start()
        self._threads.append(thread)

    def wait_written(self) -> None:
        """Wait until the output that has been received is written."""
        outputs = (StreamId.OUT, StreamId.ERR)
        self._link.wait(
            lambda: all(len(self._link.peek(stream)) == 0 or self._failed(stream) for stream in outputs)
        )

    def _failed(self, stream: StreamId) -> bool:
        return _NAMES[stream] in self.failures

    def stop(self) -> None:
        """Stop the threads; one that is blocked in a write ends with this process."""
        self._stopping = True
        self._link.stop()
        if self._wake_fd == -1:
            return
        os.close(self._wake_fd)
        self._wake_fd = -1
        for thread in self._threads:
            thread.join(_STOP_S)
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._woken_fd)

    def _write(self, stream: StreamId, fd: int | None) -> None:
        """Write the output until it has ended or its reader has closed it."""
        link = self._link
        while link.wait(lambda: self._stopping or len(link.peek(stream)) > 0 or link.has_ended(stream)):
            data = link.peek(stream)
            if len(data) == 0:
                return
            try:
                written = _write_some(fd, data) if self._writes_output else len(data)
            except OSError as error:
                self.failures[_NAMES[stream]] = error
                link.close(stream)
                return
            link.take(stream, written)

    def _read(self, stream: StreamId, fd: int | None) -> None:
        """Read stdin while the command has room for it, from when it has started."""
        link = self._link
        while link.wait(lambda: self._stopping or link.is_closed(stream) or self._may_read(stream)):
            if self._stopping or link.is_closed(stream) or fd is None:
                break
            if fd not in self._readable(fd):
                continue
            try:
                data = os.read(fd, min(CHUNK_BYTES, link.room(stream)))
            except BlockingIOError:
                continue
            except OSError as error:
                self.failures[_NAMES[stream]] = error
                break
            if data == b"":
                break
            link.write(stream, data)
        link.end(stream)
        if link.is_closed(stream) and fd is not None:
            self._close_input(fd)

    def _may_read(self, stream: StreamId) -> bool:
        return self._link.session != 0 and self._link.room(stream) > 0

    def _readable(self, fd: int) -> list[int]:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._woken_fd, select.POLLIN)
        return [ready for ready, _ in poll.poll()]

    @staticmethod
    def _close_input(fd: int) -> None:
        """Close stdin, so that the program that writes it notices that the command has closed its own."""
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, fd)
        os.close(null)


def _write_some(fd: int | None, data: memoryview) -> int:
    """Write the beginning of data, also to a descriptor that does not block; return its size.

    Raises:
        OSError: It cannot be written, for instance because the stream was closed when this process started.
    """
    if fd is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            select.select([], [fd], [], _STOP_S)
