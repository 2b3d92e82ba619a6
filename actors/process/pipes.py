"""The pipes of a child process, and one wait for its output, its exit and interrupts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import subprocess
import threading
from collections.abc import Callable, Generator
from typing import IO, Self

from actors.context import StreamName
from middleware.streams.attached import Attached
from middleware.streams.link import CHUNK_BYTES

#: Name of a stream, and what was read from it.
Piece = tuple[StreamName, bytes]

_READ_BYTES = 65_536
#: The same for a command that is attached to its caller, and the size of its pipes, if the kernel permits it.
_ATTACHED_READ_BYTES = CHUNK_BYTES
_ATTACHED_PIPE_BYTES = 2 * CHUNK_BYTES
#: Longest wait for room before the state of the job is checked again, in seconds.
_ROOM_POLL_S = 1.0
_OUTPUTS: tuple[StreamName, ...] = ("out", "err")
#: Reads of the rest after the end; a pipe holds 64 kB by default. More data would come from an escaped
#: process that is still writing.
_REST_READS = 16


class WakePipe:
    """A pipe through which other threads wake the waiting thread."""

    def __enter__(self) -> Self:
        # Re-entrant: a signal handler may call set() in the thread that holds the lock.
        self._lock = threading.RLock()
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            write_fd, self._write_fd = self._write_fd, -1
            os.close(write_fd)
            os.close(self.fd)

    def set(self) -> None:
        """Wake the waiting thread; may be called at any time, also without one."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._write_fd != -1:
                os.write(self._write_fd, b"x")

    def clear(self) -> None:
        """Reset after a wake-up."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, _READ_BYTES)


class ChildPipes:
    """The child's three pipes, with one wait for output, exit and wake-ups.

    Args:
        popen: The child.
        stdin: What it gets as standard input, unless a caller is attached that passes its own on.
        wake: Wakes the wait.
        streams: The caller that its output is passed on to; None if none is attached. A stream is not read
            while the caller has no room for more of it, so a slow caller slows the child down.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        stdin: bytes,
        wake: WakePipe,
        streams: Attached | None = None,
    ) -> None:
        self._popen = popen
        self._stdin = memoryview(stdin)
        self._wake = wake
        self._streams = streams
        self._read_bytes = _READ_BYTES if streams is None else _ATTACHED_READ_BYTES
        self._selector = selectors.DefaultSelector()
        self._open_outputs: set[StreamName] = set()
        self._pidfd = -1

    def __enter__(self) -> Self:
        self._selector.register(self._wake.fd, selectors.EVENT_READ, None)
        for name in _OUTPUTS:
            self._prepare(self._output(name))
            self._selector.register(self._output(name), selectors.EVENT_READ, name)
            self._open_outputs.add(name)
        if self._popen.stdin is not None:
            self._prepare(self._popen.stdin)
            if self._stdin:
                self._selector.register(self._popen.stdin, selectors.EVENT_WRITE, "in")
        self._watch_exit()
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        if self._pidfd != -1:
            os.close(self._pidfd)

    def _output(self, name: StreamName) -> IO[bytes]:
        stream = self._popen.stdout if name == "out" else self._popen.stderr
        if stream is None:
            raise LookupError(f"the child has no pipe {name}")
        return stream

    def _prepare(self, stream: IO[bytes]) -> None:
        os.set_blocking(stream.fileno(), False)
        if self._streams is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # the user has too many large pipes
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _ATTACHED_PIPE_BYTES)

    def _watch_exit(self) -> None:
        """Wake the wait when the child exits: by its pidfd, or by a thread where there is none (macOS)."""
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
        except (AttributeError, OSError):
            _ExitWaiter(self._popen, self._wake).start()
        else:
            self._selector.register(self._pidfd, selectors.EVENT_READ, "exit")

    def read(self, timeout_s: float | None) -> Generator[Piece]:
        """Wait for the next event and yield the available output."""
        if self._streams is not None:
            self._follow_caller(self._streams)
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._wake.clear()
            elif key.data == "exit":
                self._selector.unregister(self._pidfd)
                self._popen.wait()
            elif key.data == "in":
                self._feed()
            else:
                yield from self._read_stream(key.data)

    def _follow_caller(self, streams: Attached) -> None:
        """Wait for what the caller is ready for: read where it has room, write what it has sent."""
        watched = self._selector.get_map()
        for name in tuple(self._open_outputs):
            stream = self._output(name)
            if streams.is_closed(name):
                # The child gets SIGPIPE at its next write, as it would from the caller's own pipe.
                self._close_output(name)
            elif streams.room(name) == 0:
                if stream.fileno() in watched:
                    self._selector.unregister(stream)
            elif stream.fileno() not in watched:
                self._selector.register(stream, selectors.EVENT_READ, name)
        stdin = self._popen.stdin
        if stdin is None or stdin.closed or not streams.has_input:
            return
        if streams.peek_input():
            if stdin.fileno() not in watched:
                self._selector.register(stdin, selectors.EVENT_WRITE, "in")
        elif streams.input_ended:
            self._close_stdin()

    def rest(self, hurry: Callable[[], bool]) -> Generator[Piece]:
        """Yield the rest of the output without waiting for processes that keep a pipe open.

        Args:
            hurry: Returns whether to leave out what an attached caller has no room for, instead of waiting.
        """
        for name in _OUTPUTS:
            for _ in range(_REST_READS):
                while self._room(name) == 0 and not hurry():
                    select.select([self._wake.fd], [], [], _ROOM_POLL_S)
                    self._wake.clear()
                if name not in self._open_outputs or self._room(name) == 0:
                    break
                yield from self._read_stream(name)

    def _room(self, name: StreamName) -> int:
        return self._read_bytes if self._streams is None else min(self._read_bytes, self._streams.room(name))

    def _read_stream(self, name: StreamName) -> Generator[Piece]:
        if name not in self._open_outputs:
            return
        try:
            data = os.read(self._output(name).fileno(), self._room(name))
        except BlockingIOError:
            return
        if data == b"":
            self._close_output(name)
            return
        if self._streams is not None:
            self._streams.write(name, data)
        yield name, data

    def _close_output(self, name: StreamName) -> None:
        stream = self._output(name)
        if stream.fileno() in self._selector.get_map():
            self._selector.unregister(stream)
        stream.close()
        self._open_outputs.discard(name)

    def _feed(self) -> None:
        """Write the next part of its standard input."""
        stream = self._popen.stdin
        if stream is None or stream.closed:
            return
        attached = self._streams if self._streams is not None and self._streams.has_input else None
        data = self._stdin[:_READ_BYTES] if attached is None else attached.peek_input()
        try:
            written = os.write(stream.fileno(), data)
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The program has closed its standard input.
            self._close_stdin()
            if attached is not None:
                attached.close_input()
            return
        if attached is None:
            self._stdin = self._stdin[written:]
            if not self._stdin:
                self._close_stdin()
            return
        attached.take_input(written)
        if not attached.peek_input():
            self._selector.unregister(stream)

    def _close_stdin(self) -> None:
        stream = self._popen.stdin
        if stream is not None and not stream.closed:
            if stream.fileno() in self._selector.get_map():
                self._selector.unregister(stream)
            stream.close()


class _ExitWaiter(threading.Thread):
    """Waits for the child's exit where the system has no pidfd (macOS)."""

    def __init__(self, popen: subprocess.Popen[bytes], wake: WakePipe) -> None:
        super().__init__(name=f"wait-{popen.pid}", daemon=True)
        self._popen = popen
        self._wake = wake

    def run(self) -> None:
        self._popen.wait()
        self._wake.set()
