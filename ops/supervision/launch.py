"""Start a program that ends with its parent: ``python -I -S launch.py PARENT_PID SIGNAL -- ARGV...``.

A separate process sets the parent death signal on itself and then executes the program, which costs about
20 ms. Doing so between ``fork`` and ``exec`` (``preexec_fn``) would run Python code in the copy of a process
with threads, where a lock held by another thread is never released.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

#: Exit status of a shell for a program that cannot be started.
EXIT_NOT_STARTED = 127


def launch_argv(argv: Sequence[str], signal_number: int) -> list[str]:
    """Return the argument list that starts ``argv`` so that it receives a signal when this process ends.

    On a kernel without parent death signal (macOS), this is ``argv`` itself.
    """
    if not sys.platform.startswith("linux"):
        return list(argv)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(signal_number), "--", *argv]


def _main(parent_pid: int, signal_number: int, argv: list[str]) -> int:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal_number, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent_pid:
        # The parent ended before the signal was set.
        return EXIT_NOT_STARTED
    try:
        os.execvp(argv[0], argv)  # noqa: S606 (this is its purpose)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return EXIT_NOT_STARTED


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]))
