"""A supervised program: its definition, its running process, and the parsing of its output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ops.errors import StartFailed
from ops.logs import get_logger
from ops.supervision.launch import launch_argv

_READ_BYTES = 65_536
#: Last lines of output that are kept to explain an early end.
_TAIL_LINES = 20

log = get_logger(__name__)


class Readiness(NamedTuple):
    """Result of a program's readiness check.

    Attributes:
        pids: Processes that the program cannot work without: it is stopped when one of them ends.
        marks: Environment variables (name, value) of processes that must not outlive the program, even if
            they have detached themselves.
    """

    pids: tuple[int, ...] = ()
    marks: tuple[tuple[str, str], ...] = ()


async def either(*waits: Awaitable[object], timeout_s: float | None = None) -> None:
    """Wait until one of these is done or the timeout expires; then cancel the coroutines among them."""
    futures = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            if isinstance(future, asyncio.Task):
                future.cancel()


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that the supervisor keeps running.

    Attributes:
        name: Name in logs and in ``3ox status``.
        argv: Command that runs it in the foreground.
        env: Variables added to the supervisor's environment.
        cwd: Working directory; the supervisor's when None.
        stop_timeout_s: Time between SIGTERM and SIGKILL when it is stopped, in seconds.
        ready: Takes the pid and waits until the program is ready; the supervisor sets the timeout.
        gate: Whether the programs after it start only when it is ready, and stop before it.
        restart: Whether it is restarted when it ends; if not, its end stops the supervisor.
        pass_fds: File descriptors that it inherits.
        optional: Whether the start neither waits for it nor fails when it ends early.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stop_timeout_s: float = 10.0
    ready: Callable[[int], Awaitable[Readiness]] | None = None
    gate: bool = False
    restart: bool = True
    pass_fds: tuple[int, ...] = ()
    optional: bool = False


class RunningProgram:
    """The process of a program, in its own session; it ends with the supervisor.

    Args:
        program: The program; it is started at once.
        environ: Its whole environment.

    Attributes:
        ended: Future that is done when the process has ended; its result is the exit code, negative for a
            signal.
        tail: The last lines of its output.

    Raises:
        StartFailed: The program cannot be started.
    """

    def __init__(self, program: Program, environ: Mapping[str, str]) -> None:
        self.program = program
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._lines = LineSplitter()
        self._watched_fds: list[int] = []
        try:
            self._popen = subprocess.Popen(
                launch_argv(program.argv, signal.SIGTERM),
                env=dict(environ),
                cwd=program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=program.pass_fds,
            )
        except OSError as error:
            raise StartFailed(
                f"{program.name} cannot be started: {error}.",
                remedy="Check the installation.",
            ) from error
        self.pid = self._popen.pid
        if self._popen.stdout is None:  # pragma: no cover (stdout=PIPE always sets it)
            raise StartFailed(f"{program.name} has no output pipe.")
        self._output_fd = os.dup(self._popen.stdout.fileno())
        self._popen.stdout.close()
        os.set_blocking(self._output_fd, False)
        asyncio.get_running_loop().add_reader(self._output_fd, self._read)

    def set_ended(self, exit_code: int) -> None:
        """Record the exit code of the process, which the supervisor has reaped."""
        # Without it, Popen would wait for the reaped process.
        self._popen.returncode = exit_code
        self._unwatch()
        self._read()
        if not self.ended.done():
            self.ended.set_result(exit_code)

    def watch(self, readiness: Readiness) -> None:
        """Kill the program when one of these processes ends (Linux; on macOS the program must detect it)."""
        if not hasattr(os, "pidfd_open"):
            return
        for pid in readiness.pids:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                self._watched_fds.append(pidfd)
                asyncio.get_running_loop().add_reader(pidfd, self._watched_process_ended, pid)

    def _watched_process_ended(self, pid: int) -> None:
        self._unwatch()
        log.warning("program.lost_process", program=self.program.name, lost_pid=pid)
        self.kill()

    def _unwatch(self) -> None:
        for pidfd in self._watched_fds:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._watched_fds.clear()

    def kill(self) -> None:
        """Send SIGKILL to the process and its group."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop the process: SIGTERM, wait, then SIGKILL.

        Args:
            hurry: Ends the wait early when set.
        """
        self._unwatch()
        if self.ended.done():
            return
        # To the process, not its group: Dramatiq's master forwards it, and a worker aborts on the second one.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        await either(self.ended, hurry.wait(), timeout_s=self.program.stop_timeout_s)
        if not self.ended.done():
            log.warning("program.killed", program=self.program.name, after_s=self.program.stop_timeout_s)
            self.kill()
            await self.ended

    def _read(self) -> None:
        # End of file may come after the end of the process, if a process that it started inherited the pipe.
        while self._output_fd >= 0:
            try:
                data = os.read(self._output_fd, _READ_BYTES)
            except BlockingIOError:
                return
            self._log_output(data)
            if not data:
                self._close_output()

    def _log_output(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self.tail.append(line)
            level, text, logger = parse_line(line)
            named = {} if logger is None else {"source": logger}
            getattr(log, level)("program.output", program=self.program.name, text=text, **named)

    def _close_output(self) -> None:
        asyncio.get_running_loop().remove_reader(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = -1

    def close(self) -> None:
        """Read the output that is there without waiting for more, and close the pipe."""
        self._read()
        if self._output_fd >= 0:
            self._log_output(b"")
            self._close_output()


#: ``dramatiq.cli.LOGFORMAT``: [time] [PID 1] [MainThread] [dramatiq.MainProcess] [INFO] text
_DRAMATIQ = re.compile(
    r"\[[^\]]*\] \[PID \d+\] \[[^\]]*\] \[(?P<logger>[^\]]*)\] \[(?P<level>[A-Z]+)\] (?P<text>.*)"
)
#: Valkey and Redis: 123:M 21 Nov 2026 22:00:00.000 * text
_VALKEY = re.compile(r"\d+:[A-Z] \d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3} (?P<mark>[.\-*#]) (?P<text>.*)")
_VALKEY_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "critical"}


class OutputLine(NamedTuple):
    """A parsed line: its ``logging`` level in lower case, its text, and the logger inside the program."""

    level: str
    text: str
    logger: str | None = None


def parse_line(line: str) -> OutputLine:
    """Parse a line of Dramatiq's master or of the store; any other line is returned as is, level ``info``."""
    found = _DRAMATIQ.fullmatch(line)
    if found is not None:
        return OutputLine(_LEVELS.get(found["level"], "info"), found["text"], found["logger"])
    found = _VALKEY.fullmatch(line)
    if found is not None:
        return OutputLine(_VALKEY_LEVELS[found["mark"]], found["text"])
    return OutputLine("info", line)


class LineSplitter:
    """Splits a byte stream into lines; a line longer than ``max_bytes`` is split too."""

    def __init__(self, max_bytes: int = 16_384) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Add a piece of the stream (empty at its end) and return the lines that are complete now."""
        *whole, rest = (self._rest + data).split(b"\n")
        pieces = [piece for line in whole for piece in self._cut(line)]
        *more, self._rest = self._cut(rest)
        pieces += more
        if not data:
            pieces.append(self._rest)
            self._rest = b""
        return [piece.decode(errors="replace").rstrip("\r") for piece in pieces if piece.strip()]

    def _cut(self, line: bytes) -> list[bytes]:
        ends = range(0, max(1, len(line)), self._max_bytes)
        return [line[start : start + self._max_bytes] for start in ends]
