"""What the shell jobs of a chaos run do: note their start and their end in a file outside the store.

Runs as ``python -I -S task.py JOURNAL LOCKS SECONDS FAMILY``. A lock of its job's own is held by the
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


def _main(journal: str, locks: str, seconds: str, family: str) -> int:
    job = os.environ["BRIDGE_JOB_ID"]
    worker = os.environ["BRIDGE_WORKER_ID"]
    journal_fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(what: str) -> None:
        # One write to a file opened for appending: whole lines, even with other writers.
        os.write(journal_fd, f"{what} {job} {worker} {os.getpid()} {time.time_ns()}\n".encode())

    lock_fd = os.open(f"{locks}/{job}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlap")
    note("start")
    if family != "none" and os.fork() == 0:
        if family != "child":
            os.setsid()
        if family == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(_STAYS_S)  # what a killed task leaves behind: it is for the bridge to end it
        os._exit(0)
    time.sleep(float(seconds))  # the work of this task
    note("end")
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
