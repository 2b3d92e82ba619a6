"""Other processes: find them, check whether they run, stop them with all their descendants.

Built on Linux features: pidfd, parent death signal, subreaper, ``/proc``. macOS has no parent death signal
and no subreaper (``set_parent_death_signal`` and ``become_subreaper`` return False); there, processes are
listed with ``ps`` and their end is detected by polling every 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ops.environment import for_child

LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
#: Of the kernel: the parent of its own threads, which have no program.
_KTHREADD = 2
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
#: A process ends at once after SIGKILL, unless the kernel holds it in a system call.
_KILLED_WITHIN_S = 2.0
#: Rounds of SIGKILL, for processes that fork faster than they are found.
_KILL_ROUNDS = 20


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int
    zombie: bool
    start_time: int


def set_parent_death_signal(number: int) -> bool:
    """Have the kernel send this process a signal when the thread that started it ends.

    The setting survives ``exec`` and is not inherited by children.

    Args:
        number: The signal.

    Returns:
        False where the kernel does not support it (macOS).
    """
    return _prctl(_PR_SET_PDEATHSIG, number)


def become_subreaper() -> bool:
    """Make this process the parent of every orphan among its descendants, so that none can escape.

    The caller must reap them (``waitpid``).

    Returns:
        False where the kernel does not support it (macOS).
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> bool:
    if not LINUX:
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


def process_start_time(pid: int) -> int | None:
    """Return when a process started, to distinguish it from a later process with the same pid.

    Returns:
        Clock ticks since boot on Linux, seconds since 1970 on macOS; None if the process does not exist.
    """
    found = _process(pid)
    return None if found is None else found.start_time


def pid_alive(pid: int, start_time: int | None = None) -> bool:
    """Return whether a process runs; a zombie does not.

    Args:
        pid: Process id.
        start_time: Its ``process_start_time``; None trusts the pid.
    """
    found = _process(pid)
    return found is not None and not found.zombie and start_time in (None, found.start_time)


def descendants(pid: int) -> list[int]:
    """Return the pids of all running descendants of a process, parents before children."""
    children: dict[int, list[_Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[int] = []
    generation = [pid]
    while generation:
        below = [process for parent in generation for process in children.get(parent, ())]
        found += [process.pid for process in below if not process.zombie]
        generation = [process.pid for process in below]
    return found


def children_of_thread(native_id: int, *, since_s: float) -> list[int]:
    """Return the pids of running processes that a thread of this process has started.

    Args:
        native_id: Of the thread.
        since_s: How long ago the oldest one was started, in seconds.

    Returns:
        Nothing where the kernel does not list them (macOS).
    """
    try:
        with open(f"/proc/self/task/{native_id}/children", "rb") as file:  # noqa: PTH123
            pids = [int(pid) for pid in file.read().split()]
    except OSError:
        return []
    oldest = (time.clock_gettime(time.CLOCK_BOOTTIME) - since_s) * os.sysconf("SC_CLK_TCK") - 1
    found = [process for pid in pids if (process := _process(pid)) is not None]
    return [process.pid for process in found if process.start_time >= oldest and not process.zombie]


def group_members(group: int) -> list[int]:
    """Return the pids of all running processes of a process group."""
    return [item.pid for item in _all_processes() if item.group == group and not item.zombie]


def find_marked(name: str, value: str, *, also: str = "") -> list[int]:
    """Return the pids of processes started with ``NAME=VALUE`` in their environment, except this one.

    A process inherits its environment however it detaches itself, so such a mark finds what process groups
    and parent relations have lost. Processes of other users are not visible.

    Args:
        name: Name of the variable.
        value: Its value.
        also: A second ``NAME=VALUE`` that must be present; empty for none.
    """
    return [pid for pid, found in marked(name, also=also).items() if found == value]


def marked(name: str, *, also: str = "") -> dict[int, str]:
    """Return the processes started with a variable in their environment, and its value by pid.

    Skips processes we cannot inspect, and the current process.

    Args:
        name: Name of the variable.
        also: A second ``NAME=VALUE`` that must be present; empty for none.
    """
    if not LINUX:
        return _marked_by_ps(name, also)
    wanted, needed = os.fsencode(name) + b"=", os.fsencode(also)
    found: dict[int, str] = {}
    for pid in _proc_pids():
        # The process may have ended since it was listed, or belong to another user.
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 (hundreds are read)
                environ = file.read()
            if wanted in environ and needed in environ and pid != os.getpid():
                parts = environ.split(b"\0")
                hits = [part for part in parts if part.startswith(wanted)]
                if hits and (not needed or needed in parts):
                    found[pid] = os.fsdecode(hits[0][len(wanted) :])
    return found


def command_line(pid: int) -> bytes:
    """Return the command line of a process as the kernel has it; empty if it cannot be read."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
        return file.read()
    return b""


def find_forked(name: str, command: bytes) -> tuple[list[int], bool]:
    """Return the pids of what was forked from a process and does not run a program of its own yet.

    Args:
        name: Name of a file that the process had mapped into its memory, unique on this host: what is forked
            has it mapped too.
        command: Command line of the process; empty if it is not known.

    Returns:
        Beside the pids: whether some process is about to run a program, so that it has neither the memory of
        its parent any more nor an environment yet.
    """
    wanted, found, starting = os.fsencode(name), [], False
    for pid in _proc_pids() if LINUX else ():
        own = command_line(pid)
        if own == b"":
            process = _process(pid)
            starting |= (
                process is not None
                and not process.zombie
                and _KTHREADD not in (pid, process.parent)
                and command_line(pid) == b""
            )
        elif command in (b"", own) and pid != os.getpid():
            # The process may have ended since it was listed, or belong to another user.
            with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:  # noqa: PTH123
                if wanted in file.read():
                    found.append(pid)
    return found, starting


def stop_processes(
    find: Callable[[], Iterable[int]], *, grace_s: float, on_force: Callable[[], None] | None = None
) -> bool:
    """Stop processes: SIGTERM, a grace period, then SIGKILL, until none is found.

    Args:
        find: Returns the pids of those that are left; called repeatedly, because they may start others.
        grace_s: Time between SIGTERM and SIGKILL, in seconds.
        on_force: Called before the first SIGKILL.

    Returns:
        True when none is left; False when a process survives SIGKILL, which only the kernel can cause.
    """
    deadline_s = time.monotonic() + grace_s
    signalled: set[int] = set()
    while time.monotonic() < deadline_s:
        left = _living(find())
        if not left:
            return True
        for pid in left - signalled:
            _send(pid, signal.SIGTERM)
            # A stopped process (SIGSTOP) would not receive SIGTERM within its grace period.
            _send(pid, signal.SIGCONT)
        signalled |= left
        wait_ended(left, deadline_s - time.monotonic())
    for attempt in range(_KILL_ROUNDS):
        left = _living(find())
        if not left:
            return True
        if attempt == 0 and on_force is not None:
            on_force()
        for pid in left:
            _send(pid, signal.SIGKILL)
        wait_ended(left, _KILLED_WITHIN_S)
    return not _living(find())


def wait_ended(pids: Iterable[int], timeout_s: float) -> bool:
    """Wait until all of these processes have ended.

    Args:
        pids: Their pids; children of this process count as ended before they are reaped.
        timeout_s: Timeout in seconds.

    Returns:
        Whether all ended in time.
    """
    deadline_s = time.monotonic() + max(timeout_s, 0.0)
    if not hasattr(os, "pidfd_open"):
        left = [pid for pid in pids if pid_alive(pid)]
        while left and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            left = [pid for pid in left if pid_alive(pid)]
        return not left
    poller = select.poll()
    open_fds: set[int] = set()
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                open_fds.add(pidfd)
                poller.register(pidfd, select.POLLIN)
        waiting = len(open_fds)
        while waiting:
            ready = poller.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
            if not ready:
                return False
            for pidfd, _ in ready:
                poller.unregister(pidfd)
            waiting -= len(ready)
        return True
    finally:
        for pidfd in open_fds:
            os.close(pidfd)


def _living(pids: Iterable[int]) -> set[int]:
    return {pid for pid in pids if pid_alive(pid)}


def _send(pid: int, number: signal.Signals) -> None:
    # The process may have ended since it was found.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _proc_pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())  # noqa: PTH208


def _process(pid: int) -> _Process | None:
    if not LINUX:
        return next((item for item in _processes_by_ps(pid) if item.pid == pid), None)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (hundreds are read)
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The process name, in brackets, may contain spaces and brackets itself; see proc_pid_stat(5).
    fields = stat[stat.rindex(b")") + 2 :].split()
    return _Process(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        zombie=fields[0] in {b"Z", b"X"},
        start_time=int(fields[19]),
    )


def _all_processes() -> list[_Process]:
    if not LINUX:
        return list(_processes_by_ps())
    found = (_process(pid) for pid in _proc_pids())
    return [process for process in found if process is not None]


def _processes_by_ps(pid: int | None = None) -> Iterator[_Process]:
    which = ["-A"] if pid is None else ["-p", str(pid)]
    for line in _ps(*which, "-o", "pid=,ppid=,pgid=,stat=,lstart="):
        number, parent, group, state, *started = line.split()
        yield _Process(
            pid=int(number),
            parent=int(parent),
            group=int(group),
            zombie=state.startswith("Z"),
            start_time=int(time.mktime(time.strptime(" ".join(started), "%a %b %d %H:%M:%S %Y"))),
        )


def _marked_by_ps(name: str, also: str) -> dict[int, str]:
    # `ps e` appends the environment to the command line: works for values without spaces, such as ours.
    found: dict[int, str] = {}
    for line in _ps("axeww", "-o", "pid=,command="):
        number, *words = line.split()
        hits = [word for word in words if word.startswith(name + "=")]
        if hits and int(number) != os.getpid() and (not also or also in words):
            found[int(number)] = hits[-1].partition("=")[2]
    return found


def _ps(*arguments: str) -> list[str]:
    # ps exits with 1 when it finds no process, which is not an error here.
    ran = subprocess.run(
        ["ps", *arguments],
        env=for_child({"LC_ALL": "C"}),
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return ran.stdout.splitlines()
