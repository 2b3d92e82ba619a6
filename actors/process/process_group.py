"""A child and its descendants: finding and stopping them."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Self

from actors.process.pipes import WakePipe
from ops.errors import JobRefused
from ops.processes import (
    descendants,
    find_marked,
    group_members,
    pid_alive,
    process_start_time,
    stop_processes,
    wait_ended,
)


class ProcessGroup:
    """A child and its descendants.

    They are found in three ways, because each has a gap: by their marks (a program can clear its
    environment), by process group (``setsid`` leaves it), and by parent (an orphan has none). Processes found
    once are remembered.

    Parameters:
        popen: The child; it leads its own session.
        job_id: Id of the job, in their environment.
        worker_id: Id of the worker, in their environment. If the job was recovered by another worker of this
            host, the processes there belong to that one. Empty for a job that no worker runs.
        kill_grace_s: Time between SIGTERM and SIGKILL, in seconds.

    Attributes:
        killed: Whether one of them had to be killed with SIGKILL.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], *, job_id: str, worker_id: str, kill_grace_s: float
    ) -> None:
        self._popen = popen
        self._job_id = job_id
        self._worker_mark = f"BRIDGE_WORKER_ID={worker_id}" if worker_id else ""
        self._kill_grace_s = kill_grace_s
        self._known: dict[int, int | None] = {}
        self._gone = False
        self.killed = False

    def members(self) -> list[int]:
        """Return the pids of those that are running."""
        child_runs = self._popen.poll() is None
        found = set(find_marked("BRIDGE_JOB_ID", self._job_id, also=self._worker_mark))
        found.update(group_members(self._popen.pid))
        # Processes without mark that have left the group are found as descendants of known ones.
        roots = self._known.keys() - found
        if child_runs:
            roots.add(self._popen.pid)
            found.add(self._popen.pid)
        for root in roots:
            found.update(descendants(root))
        found.discard(os.getpid())
        for pid in found - self._known.keys():
            self._known[pid] = process_start_time(pid)
        alive = [pid for pid, start_time in self._known.items() if pid_alive(pid, start_time)]
        self._gone = not alive and not child_runs
        return alive

    def end(self, grace_s: float) -> int:
        """Wait for all to end by themselves, then stop the others.

        Args:
            grace_s: Time to end by themselves, in seconds.

        Returns:
            How many were stopped.
        """
        left = self.members()
        if left and grace_s > 0:
            wait_ended(left, grace_s)
            left = self.members()
        self.stop()
        return len(left)

    def stop(self) -> None:
        """Stop the remaining ones: SIGTERM, then SIGKILL; returns within a limited time."""
        if not self._gone:
            stop_processes(self._signalable, grace_s=self._kill_grace_s, on_force=self._set_killed)
            self.members()

    def _set_killed(self) -> None:
        self.killed = True

    def how_stopped(self) -> str:
        """Return how they were stopped, in a few words."""
        if self.killed:
            return f"killed, because it did not end within {self._kill_grace_s:g} s of SIGTERM"
        return "stopped after SIGTERM"

    def _signalable(self) -> list[int]:
        """Return the members that we may signal; it is useless to wait for the others."""
        return [pid for pid in self.members() if _may_signal(pid)]

    def require_gone(self) -> None:
        """Return if no process is left.

        Raises:
            JobRefused: A process is left: it belongs to another user, or hangs in the kernel.
        """
        left = self.members() if not self._gone else []
        if left:
            raise JobRefused(
                f"Processes of the job could not be stopped: {', '.join(map(str, sorted(left)))}.",
                remedy="Stop them by hand; they may belong to another user.",
            )


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


class GroupTermination(threading.Thread):
    """Ends a process group in the background, while its output is still read.

    Parameters:
        group: The process group.
        grace_s: Time to end by themselves, in seconds.
        wake: Set when all have ended.

    Attributes:
        stopped: How many were stopped, after it has ended.
    """

    def __init__(self, group: ProcessGroup, grace_s: float, wake: WakePipe) -> None:
        super().__init__(name="group-termination", daemon=True)
        self._group = group
        self._grace_s = grace_s
        self._wake = wake
        self._done = threading.Event()
        self.stopped = 0

    @property
    def ended(self) -> bool:
        """Whether all processes have ended."""
        return self._done.is_set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def run(self) -> None:
        """End the process group."""
        try:
            self.stopped = self._group.end(self._grace_s)
        finally:
            self._done.set()
            self._wake.set()
