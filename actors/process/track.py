"""Follow a process that runs already, as a job, until it ends; what ``3ox track`` makes.

Such a job can be carried out only on the host on which the process runs. A process of the command's own
begins with it there (``ingress.cli.track_process``); if that is lost, any worker of the same host goes on.
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
from middleware.job.schema import Job
from ops.errors import JobRefused
from ops.processes import LINUX, pid_alive, process_start_time

#: Keys of the job's metadata that say which process it follows.
PID, HOST, STARTED = "track_pid", "track_host", "track_started"
#: A process is looked at so often; more would cost it more than the figures are worth.
_LOOK_EVERY_S = 2.0
#: Where the kernel does not tell of the end of a process (macOS), it is asked for so often.
_ASK_EVERY_S = 0.5
_MEGABYTE = 1_048_576


class TrackedProcess(Struct, frozen=True, kw_only=True):
    """A process, on its host.

    Attributes:
        pid: Its id.
        host: Where it runs.
        started: When it started, see ``ops.processes.process_start_time``: a pid is used again.
    """

    pid: int
    host: str
    started: int

    def metadata(self) -> dict[str, str]:
        """Give what a job's metadata says of it."""
        return {PID: str(self.pid), HOST: self.host, STARTED: str(self.started)}


class TrackResult(Struct, frozen=True, kw_only=True):
    """Result of a job that followed a process.

    Attributes:
        pid: Its id.
        host: Where it ran.
        ended: Always true: its exit status is told to its parent only, and to nobody else.
        followed_s: For how long it was followed, in seconds.
        cpu_s: Processor time it had used when it was last looked at; None if it never was.
        rss_max_bytes: Most memory it was seen with.
    """

    pid: int
    host: str
    ended: bool = True
    followed_s: float
    cpu_s: float | None = None
    rss_max_bytes: int | None = None


class _ProcessUsage(Struct, frozen=True):
    """What a look at a process shows."""

    cpu_s: float
    rss_bytes: int


def find_process(pid: int) -> TrackedProcess | None:
    """Give a process of this host, None if there is none."""
    started = process_start_time(pid)
    if started is None or not pid_alive(pid, started):
        return None
    return TrackedProcess(pid=pid, host=socket.gethostname(), started=started)


def tracked_process(job: Job) -> TrackedProcess | None:
    """Give the process that a job is to follow; None for any other job.

    Only who may log in on a host may have its processes looked at: of others the marks mean nothing.
    """
    marks = job.metadata
    if job.trust != "operator" or PID not in marks:
        return None
    try:
        return TrackedProcess(pid=int(marks[PID]), host=marks[HOST], started=int(marks[STARTED]))
    except (KeyError, ValueError) as error:
        raise JobRefused(
            "the job does not say which process it follows.", remedy="Use '3ox track PID'."
        ) from error


def follow_process(process: TrackedProcess) -> TrackResult:
    """Follow a process to its end; processor time and memory become the job's progress message.

    Raises:
        JobRefused: It runs on another host.
        JobInterrupted: The job was cancelled or ran out of time; the process goes on.
    """
    context = current_job()
    here = socket.gethostname()
    if process.host != here:
        raise JobRefused(
            f"process {process.pid} runs on {process.host}, and whoever followed it there is gone.",
            remedy=f"If it still runs, use '3ox track {process.pid}' on {process.host}.",
        )
    began_s, peak_bytes = time.monotonic(), 0
    last: _ProcessUsage | None = None
    said = ""
    with WakePipe() as wake, context.on_interrupt(lambda _: wake.set()):
        for elapsed_s in _until_ended(process, wake):
            context.check_cancelled()
            now = _look(process.pid)
            if now is None:
                continue
            peak_bytes = max(peak_bytes, now.rss_bytes)
            busy = 0.0 if last is None else 100 * max(0.0, now.cpu_s - last.cpu_s) / max(elapsed_s, 0.001)
            last = now
            message = f"pid {process.pid}: cpu {busy:.0f}%, {now.rss_bytes / _MEGABYTE:.0f} MB"
            if message != said:
                context.progress(0, message)
                said = message
    return TrackResult(
        pid=process.pid,
        host=process.host,
        followed_s=round(time.monotonic() - began_s, 3),
        cpu_s=None if last is None else last.cpu_s,
        rss_max_bytes=peak_bytes if peak_bytes > 0 else None,
    )


def _until_ended(process: TrackedProcess, wake: WakePipe) -> Iterator[float]:
    """Yield the seconds since the last time, now and then while it runs and whenever ``wake`` is set."""
    with _exit_of(process) as exit_fd:
        watched = [wake.fd] if exit_fd is None else [wake.fd, exit_fd]
        pause_s = _ASK_EVERY_S if exit_fd is None else _LOOK_EVERY_S
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
    """Give a descriptor that is readable when the process has ended, None if the system has none."""
    pidfd: int | None = None
    # Gone before it could be opened, or a thread: then it is asked for now and then.
    with contextlib.suppress(AttributeError, OSError):
        pidfd = os.pidfd_open(process.pid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _look(pid: int) -> _ProcessUsage | None:
    """Read a process's figures; None if it has ended, or the system does not show them (macOS)."""
    if not LINUX:
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (no need for a Path)
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may itself hold spaces and brackets; the rest is in proc_pid_stat(5).
    fields = stat[stat.rindex(b")") + 2 :].split()
    ticks = int(fields[11]) + int(fields[12])
    return _ProcessUsage(
        cpu_s=round(ticks / os.sysconf("SC_CLK_TCK"), 2),
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )
