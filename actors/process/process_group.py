"""Everything that a child has started: how it is found, and how it is ended."""

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

    They are found in three ways, since each has a gap: by their marks (a program can drop its environment),
    by the process group (``setsid`` leaves it), by parentage (an orphan has none). What has been seen once is
    remembered.

    Parameters:
        popen: The child; leads a session of its own.
        job_id: In their environment.
        worker_id: Likewise: if the job has meanwhile been given to another worker of this host, what it has
            started there is none of ours. Empty for a job that no worker runs.
        kill_grace_s: Time between SIGTERM and SIGKILL.

    Attributes:
        killed: Whether one of them did not end when it was asked to.
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
        """Give those that are alive."""
        child_runs = self._popen.poll() is None
        found = set(find_marked("BRIDGE_JOB_ID", self._job_id, also=self._worker_mark))
        found.update(group_members(self._popen.pid))
        # What bears no mark and left the group is found through its parents, and as a parent itself.
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

    def end(self, patience_s: float) -> int:
        """Wait for all to end by themselves, and stop those that have not.

        Args:
            patience_s: How long to wait for them first.

        Returns:
            How many had to be stopped.
        """
        left = self.members()
        if left and patience_s > 0:
            wait_ended(left, patience_s)
            left = self.members()
        self.stop()
        return len(left)

    def stop(self) -> None:
        """Stop what is left: SIGTERM, then SIGKILL; bounded."""
        if not self._gone:
            stop_processes(self._ours, grace_s=self._kill_grace_s, on_force=self._note_force)
            self.members()

    def _note_force(self) -> None:
        self.killed = True

    def how_stopped(self) -> str:
        """Say how they were ended, a few words."""
        if self.killed:
            return f"killed, since it did not end within {self._kill_grace_s:g} s of SIGTERM"
        return "stopped after SIGTERM"

    def _ours(self) -> list[int]:
        """Give those members that we may signal; there is no use in waiting for the others."""
        return [pid for pid in self.members() if _may_signal(pid)]

    def require_gone(self) -> None:
        """Make sure that nothing is left.

        Raises:
            JobRefused: Something is, since it belongs to another user or hangs in the kernel.
        """
        left = self.members() if not self._gone else []
        if left:
            raise JobRefused(
                f"processes of the job could not be stopped: {', '.join(map(str, sorted(left)))}.",
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
    """Ends a family in the background, while its output is read on.

    Parameters:
        family: Whom to end.
        patience_s: How long they may take to end by themselves.
        wake: Told when all is done.

    Attributes:
        stopped: How many had to be stopped, when it has ended.
    """

    def __init__(self, family: ProcessGroup, patience_s: float, wake: WakePipe) -> None:
        super().__init__(name="sweep", daemon=True)
        self._family = family
        self._patience_s = patience_s
        self._wake = wake
        self._done = threading.Event()
        self.stopped = 0

    @property
    def ended(self) -> bool:
        """Whether it is done."""
        return self._done.is_set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def run(self) -> None:
        """End the family."""
        try:
            self.stopped = self._family.end(self._patience_s)
        finally:
            self._done.set()
            self._wake.set()
