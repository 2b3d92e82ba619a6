"""What the jobs of a chaos run do: note their start and their end in a file outside the store.

Shell jobs run ``python -I -S task.py JOURNAL LOCKS SECONDS FAMILY``. A lock of its job's own is held by the
process and everything that it starts until the last of them is gone: another attempt that finds it taken
has met a living copy, and says so. FAMILY: ``none``; ``child``: leaves one behind in the same group;
``detached``: one in a session of its own; ``stubborn``: that, and deaf to SIGTERM.
"""

import fcntl
import os
import signal
import sys
import time

_STAYS_S = 120.0


class Attempt:
    """An attempt of a job, as the job itself notes it.

    Args:
        journal: File that gets a line for each start and end.
        locks: Directory of the locks.
        job: Id of the job.
        worker: Id of the worker that runs it.
    """

    def __init__(self, journal: str, locks: str, job: str, worker: str) -> None:
        self._line = f"{job} {worker} {os.getpid()}"
        self._journal_fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock_fd = os.open(f"{locks}/{job}", os.O_RDWR | os.O_CREAT, 0o600)

    def start(self) -> None:
        """Note the start, and whether another attempt is alive."""
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._note("overlap")
        self._note("start")

    def end(self) -> None:
        """Note the end of the work."""
        self._note("end")

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock_fd)
        os.close(self._journal_fd)

    def _note(self, what: str) -> None:
        # One write to a file opened for appending: whole lines, even with other writers.
        os.write(self._journal_fd, f"{what} {self._line} {time.time_ns()}\n".encode())


def _main(journal: str, locks: str, seconds: str, family: str) -> int:
    attempt = Attempt(journal, locks, os.environ["BRIDGE_JOB_ID"], os.environ["BRIDGE_WORKER_ID"])
    attempt.start()
    if family != "none" and os.fork() == 0:
        if family != "child":
            os.setsid()
        if family == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(_STAYS_S)  # what a killed task leaves behind: it is for the bridge to end it
        os._exit(0)
    time.sleep(float(seconds))  # the work of this task
    attempt.end()
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
