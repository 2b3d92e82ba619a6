"""The pipes of a child process, and one wait for its output, its exit and interrupts."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import subprocess
import threading
from collections.abc import Generator
from typing import IO, Self

from actors.context import StreamName

Piece = tuple[StreamName, str]

_READ_BYTES = 65_536
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
    """The child's three pipes, with one wait for output, exit and wake-ups."""

    def __init__(self, popen: subprocess.Popen[bytes], stdin: bytes, wake: WakePipe) -> None:
        self._popen = popen
        self._stdin = memoryview(stdin)
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {}
        self._pidfd = -1

    def __enter__(self) -> Self:
        self._selector.register(self._wake.fd, selectors.EVENT_READ, None)
        for name, stream in (("out", self._popen.stdout), ("err", self._popen.stderr)):
            self._open(stream, selectors.EVENT_READ, name)
        if self._popen.stdin is not None:
            self._open(self._popen.stdin, selectors.EVENT_WRITE, "in")
        self._watch_exit()
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        if self._pidfd != -1:
            os.close(self._pidfd)

    def _open(self, stream: IO[bytes] | None, event: int, name: str) -> None:
        if stream is None:
            raise LookupError(f"the child has no pipe {name}")
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, event, name)
        if name in ("out", "err"):
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoders["out" if name == "out" else "err"] = decoder

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

    def rest(self) -> Generator[Piece]:
        """Yield the rest of the output without waiting for processes that keep a pipe open."""
        for name in tuple(self._decoders):
            for _ in range(_REST_READS):
                if name not in self._decoders:
                    break
                yield from self._read_stream(name)
        for name, decoder in self._decoders.items():
            text = decoder.decode(b"", final=True)
            if text != "":
                yield name, text

    def _read_stream(self, name: StreamName) -> Generator[Piece]:
        stream = self._popen.stdout if name == "out" else self._popen.stderr
        assert stream is not None  # noqa: S101 (checked by _open)
        try:
            data = os.read(stream.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        text = self._decoders[name].decode(data, final=data == b"")
        if data == b"":
            self._selector.unregister(stream)
            del self._decoders[name]
        if text != "":
            yield name, text

    def _feed(self) -> None:
        stream = self._popen.stdin
        assert stream is not None  # noqa: S101 (checked by _open)
        try:
            written = os.write(stream.fileno(), self._stdin[:_READ_BYTES])
            self._stdin = self._stdin[written:]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The program has closed its standard input.
            self._stdin = memoryview(b"")
        if not self._stdin:
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
