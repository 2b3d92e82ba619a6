"""Run something in the background, and come back when it is ready or has failed."""

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

from ingress.cli.shared import note
from ops.errors import BridgeError, StartFailed
from ops.logs import get_logger

_READY = b"ready\n"
_TAIL_LINES = 10


def run_detached(serve: Callable[[Callable[[], None]], int], *, timeout_s: float, log_file: Path) -> int:
    """Run ``serve`` in a process and session of its own; return when it is ready or has failed.

    Args:
        serve: Gets a function to call when it is ready; its result is the exit code.
        timeout_s: Bound on the wait; whoever is not ready by then is ended.
        log_file: Its end is shown if it fails.

    Returns:
        0 when it is ready; otherwise its exit code, after its error and the end of the log on stderr.

    Raises:
        StartFailed: It was not ready in time.
    """
    read_fd, write_fd = os.pipe()
    log_start = log_file.stat().st_size if log_file.exists() else 0
    sys.stdout.flush()
    sys.stderr.flush()
    # Only the command line calls this, from its one thread.
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _be_detached(serve, _Report(write_fd))
    os.close(write_fd)
    said = _read_until(read_fd, timeout_s)
    os.close(read_fd)
    if said == _READY:
        return 0
    if said is None:
        os.kill(pid, signal.SIGTERM)
        raise StartFailed(f"not ready within {timeout_s:g} s.", remedy=f"See {log_file}.")
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    _show_tail(log_file, log_start)
    text = said.decode(errors="replace")
    note(
        text if text else f"the bridge ended with exit code {exit_code} before it was ready; see {log_file}."
    )
    # To have ended in peace without ever having been ready is no success.
    return exit_code if exit_code > 0 else StartFailed.exit_code


class _Report:
    """The one thing that the detached process tells the one that waits: ready, or what went wrong."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def ready(self) -> None:
        self._tell(_READY)

    def failed(self, text: str) -> None:
        if self._fd is None:
            # Nobody waits any more; the log is read later.
            get_logger(__name__).error("bridge.failed", text=text)
        else:
            self._tell(text.encode(errors="replace"))

    def _tell(self, data: bytes) -> None:
        if self._fd is not None:
            os.write(self._fd, data)
            os.close(self._fd)
            self._fd = None


def _be_detached(serve: Callable[[Callable[[], None]], int], report: _Report) -> NoReturn:
    """Lead a session of our own, deaf and mute; never return into the caller's stack."""
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
    except BaseException:  # noqa: BLE001 (the last stop before the end of the process)
        report.failed(traceback.format_exc())
    finally:
        os._exit(exit_code)


def _read_until(fd: int, timeout_s: float) -> bytes | None:
    """Read to the end; None if that does not come in time."""
    deadline_s = time.monotonic() + timeout_s
    said = b""
    while select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        data = os.read(fd, 4096)
        if not data:
            return said
        said += data
    return None


def _show_tail(log_file: Path, start_bytes: int) -> None:
    if not log_file.exists():
        return
    with log_file.open("rb") as file:
        # Rotated meanwhile: all that is there is new.
        file.seek(start_bytes if file.seek(0, os.SEEK_END) >= start_bytes else 0)
        for line in deque(file, maxlen=_TAIL_LINES):
            click.echo(line.decode(errors="replace").rstrip("\n"), err=True)
