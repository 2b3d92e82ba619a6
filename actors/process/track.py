"""Track a running process as a job until it ends; see ``3ox track``.

Such a job can run only on the host of the process. ``3ox track`` starts a process there that runs it
(``ingress.cli.track_process``); if that one is lost, any worker of the host continues.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

from msgspec import Struct

from actors.context import current_job
from actors.process.pipes import WakePipe
from actors.process.results import TrackResult
from middleware.job.schema import Job
from ops.errors import JobRefused
from ops.processes import LINUX, pid_alive, process_start_time

#: Keys of the job's metadata that identify the process.
PID, HOST, STARTED = "track_pid", "track_host", "track_started"
#: Interval of the measurements.
_MEASURE_INTERVAL_S = 2.0
#: Polling interval for the end of the process where the kernel has no pidfd (macOS).
_POLL_INTERVAL_S = 0.5
_MEGABYTE = 1_048_576


class TrackedProcess(Struct, frozen=True, kw_only=True):
    """A process and its host.

    Attributes:
        pid: Its pid.
        host: Its host.
        started: Its start time, see ``ops.processes.process_start_time``; pids are reused.
    """

    pid: int
    host: str
    started: int

    def metadata(self) -> dict[str, str]:
        """Return the job metadata that identify it."""
        return {PID: str(self.pid), HOST: self.host, STARTED: str(self.started)}


class _ProcessUsage(Struct, frozen=True):
    """One measurement of a process."""

    cpu_s: float
    rss_bytes: int


def find_process(pid: int) -> TrackedProcess | None:
    """Return a running process of this host, or None."""
    started = process_start_time(pid)
    if started is None or not pid_alive(pid, started):
        return None
    return TrackedProcess(pid=pid, host=socket.gethostname(), started=started)


def tracked_process(job: Job) -> TrackedProcess | None:
    """Return the process that a job tracks; None for any other job.

    The metadata count only for jobs of operators, who may log in on the host anyway.
    """
    marks = job.metadata
    if job.trust != "operator" or PID not in marks:
        return None
    try:
        return TrackedProcess(pid=int(marks[PID]), host=marks[HOST], started=int(marks[STARTED]))
    except (KeyError, ValueError) as error:
        raise JobRefused(
            "The metadata of the job do not identify a process.", remedy="Use '3ox track PID'."
        ) from error


def follow_process(process: TrackedProcess) -> TrackResult:
    """Track a process to its end; CPU usage and memory become the job's progress message.

    Raises:
        JobRefused: The process runs on another host.
        JobInterrupted: The job was cancelled or ran out of time; the process continues.
    """
    context = current_job()
    here = socket.gethostname()
    if process.host != here:
        raise JobRefused(
            f"Process {process.pid} runs on {process.host}, where no '3ox track' and no worker tracks it.",
            remedy=f"If it is still running, use '3ox track {process.pid}' on {process.host}.",
        )
    began_s, peak_bytes = time.monotonic(), 0
    last: _ProcessUsage | None = None
    reported = ""
    with WakePipe() as wake, context.on_interrupt(lambda _: wake.set()):
        for elapsed_s in _until_ended(process, wake):
            context.check_cancelled()
            now = _measure(process.pid)
            if now is None:
                continue
            peak_bytes = max(peak_bytes, now.rss_bytes)
            busy = 0.0 if last is None else 100 * max(0.0, now.cpu_s - last.cpu_s) / max(elapsed_s, 0.001)
            last = now
            message = f"pid {process.pid}: cpu {busy:.0f}%, {now.rss_bytes / _MEGABYTE:.0f} MB"
            if message != reported:
                context.progress(0, message)
                reported = message
    return TrackResult(
        pid=process.pid,
        host=process.host,
        followed_s=round(time.monotonic() - began_s, 3),
        cpu_s=None if last is None else last.cpu_s,
        rss_max_bytes=peak_bytes if peak_bytes > 0 else None,
    )


def _until_ended(process: TrackedProcess, wake: WakePipe) -> Iterator[float]:
    """Yield the seconds since the last measurement, at intervals and when ``wake`` is set."""
    with _exit_of(process) as exit_fd:
        watched = [wake.fd] if exit_fd is None else [wake.fd, exit_fd]
        pause_s = _POLL_INTERVAL_S if exit_fd is None else _MEASURE_INTERVAL_S
        last_s = time.monotonic() - pause_s
        while pid_alive(process.pid, process.started):
            now_s = time.monotonic()
            yield now_s - last_s
            last_s = now_s
            ready = select.select(watched, [], [], pause_s)[0]
            if wake.fd in ready:
                wake.clear()
            elif exit_fd in ready:
                return


@contextlib.contextmanager
def _exit_of(process: TrackedProcess) -> Iterator[int | None]:
    """Yield a descriptor that becomes readable when the process ends; None if the system has none."""
    pidfd: int | None = None
    # Without pidfd (macOS), or if the process has just ended, the caller polls.
    with contextlib.suppress(AttributeError, OSError):
        pidfd = os.pidfd_open(process.pid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _measure(pid: int) -> _ProcessUsage | None:
    """Return a measurement of a process; None if it has ended, or on macOS."""
    if not LINUX:
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (no need for a Path)
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The process name, in brackets, may contain spaces and brackets itself; see proc_pid_stat(5).
    fields = stat[stat.rindex(b")") + 2 :].split()
    ticks = int(fields[11]) + int(fields[12])
    return _ProcessUsage(
        cpu_s=round(ticks / os.sysconf("SC_CLK_TCK"), 2),
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )
