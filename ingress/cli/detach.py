"""Run a process in the background, and return when it is ready or has failed."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from ingress.core.terminal import note
from ops.errors import BridgeError, StartFailed
from ops.logs import get_logger

_READY = b"ready\n"
_TAIL_LINES = 10


def run_detached(serve: Callable[[Callable[[], None]], int], *, timeout_s: float, log_file: Path) -> int:
    """Run ``serve`` in a process and session of its own; return when it is ready or has failed.

    Args:
        serve: Receives a function to call when it is ready; returns the exit code.
        timeout_s: Limit for the wait, in seconds; a process that is not ready by then is ended.
        log_file: The log, whose last lines are shown after a failure.

    Returns:
        0 when the process is ready; otherwise its exit code, its error and the log's last lines on stderr.

    Raises:
        StartFailed: The process was not ready in time.
    """
    read_fd, write_fd = os.pipe()
    log_start = log_file.stat().st_size if log_file.exists() else 0
    sys.stdout.flush()
    sys.stderr.flush()
    # Called from the command line's only thread, so that forking is safe.
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _be_detached(serve, _Report(write_fd))
    os.close(write_fd)
    report = _read_until(read_fd, timeout_s)
    os.close(read_fd)
    if report == _READY:
        return 0
    if report is None:
        os.kill(pid, signal.SIGTERM)
        raise StartFailed(f"The process was not ready within {timeout_s:g} s.", remedy=f"See {log_file}.")
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    _show_tail(log_file, log_start)
    text = report.decode(errors="replace")
    note(
        text if text else f"the bridge ended with exit code {exit_code} before it was ready; see {log_file}."
    )
    # Exit code 0 without having been ready is a failure, too.
    return exit_code if exit_code > 0 else StartFailed.exit_code


class _Report:
    """The message from the detached process to the waiting one: ready, or the error."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def ready(self) -> None:
        self._send(_READY)

    def failed(self, text: str) -> None:
        if self._fd is None:
            # The waiting process is gone; the error goes to the log.
            get_logger(__name__).error("bridge.failed", text=text)
        else:
            self._send(text.encode(errors="replace"))

    def _send(self, data: bytes) -> None:
        if self._fd is not None:
            os.write(self._fd, data)
            os.close(self._fd)
            self._fd = None


def _be_detached(serve: Callable[[Callable[[], None]], int], report: _Report) -> NoReturn:
    """Start a session without a terminal, run ``serve`` and end the process."""
    exit_code = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nowhere, fd)
        os.close(nowhere)
        exit_code = serve(report.ready)
    except BridgeError as error:
        exit_code = error.exit_code
        report.failed(str(error))
    except BaseException:  # noqa: BLE001 (reported to the waiting process)
        report.failed(traceback.format_exc())
    finally:
        os._exit(exit_code)


def _read_until(fd: int, timeout_s: float) -> bytes | None:
    """Return all data up to the end of file; None if that does not come in time."""
    deadline_s = time.monotonic() + timeout_s
    received = b""
    while select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        data = os.read(fd, 4096)
        if not data:
            return received
        received += data
    return None


def _show_tail(log_file: Path, start_bytes: int) -> None:
    if not log_file.exists():
        return
    with log_file.open("rb") as file:
        # A log that was rotated meanwhile is new as a whole.
        file.seek(start_bytes if file.seek(0, os.SEEK_END) >= start_bytes else 0)
        for line in deque(file, maxlen=_TAIL_LINES):
            click.echo(line.decode(errors="replace").rstrip("\n"), err=True)
