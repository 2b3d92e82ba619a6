"""What ``3ox up`` leaves on disk while it runs, so that ``down``, ``status`` and the next ``up`` find it.

``.3ox/run/up.pid`` is locked as long as the supervisor lives: the lock, not the number, says that it does,
so a stale file is no obstacle. ``.3ox/run/up.json`` lists its programs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ops.errors import AlreadyRunning, StartFailed
from ops.processes import descendants, find_marked, pid_alive, process_start_time, stop_processes
from ops.workspace import Workspace

#: In the environment of everything that a supervisor starts: which supervisor it was.
INSTANCE_MARK = "BRIDGE_SUPERVISED"
#: ``running_pid`` holds the lock for an instant to see whether it can; whoever holds it longer lives.
_PROBE_S = 0.2


class ProgramState(msgspec.Struct, kw_only=True):
    """One program under the supervisor.

    Attributes:
        since: When this process of it was started, RFC 3339.
        restarts: How often it has been started again.
        ready: Whether it has passed its check.
        said: The last line that it wrote before it last ended.
    """

    name: str
    pid: int | None = None
    start_time: int | None = None
    since: str | None = None
    restarts: int = 0
    ready: bool = False
    said: str = ""


class SupervisorState(msgspec.Struct, kw_only=True):
    """A running bridge on this machine.

    Attributes:
        pid: Of the supervisor.
        instance: Value of ``BRIDGE_SUPERVISED`` in everything that it has started.
        since: When it was started, RFC 3339.
        store_url: Where the store is, without password.
        home: The workspace, without links: a copy of this file elsewhere is told by it.
    """

    pid: int
    start_time: int | None
    instance: str
    since: str
    store_url: str = ""
    home: str = ""
    programs: list[ProgramState] = []


def _pid_file(workspace: Workspace) -> Path:
    return workspace.run_dir / "up.pid"


def _state_file(workspace: Workspace) -> Path:
    return workspace.run_dir / "up.json"


def running_pid(workspace: Workspace) -> int | None:
    """Give the process id of the supervisor that serves this workspace, or None."""
    pid = _locking_pid(workspace)
    if pid is None:
        # Somebody may have removed its pid file.
        state = _read(workspace)
        pid = state.pid if state is not None and _is_alive(state) and _is_of(state, workspace) else None
    return pid


def _is_alive(state: SupervisorState) -> bool:
    return pid_alive(state.pid, state.start_time)


def _is_of(state: SupervisorState, workspace: Workspace) -> bool:
    return state.home == os.path.realpath(workspace.home)


def _locking_pid(workspace: Workspace) -> int | None:
    import fcntl

    try:
        fd = os.open(_pid_file(workspace), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32)
        # It is empty for the moment between taking the lock and writing the number.
        return int(text) if text.strip().isdigit() else None
    finally:
        os.close(fd)
    return None


def require_not_running(workspace: Workspace) -> None:
    """See to it that no supervisor serves this workspace.

    Raises:
        AlreadyRunning: One does.
    """
    pid = running_pid(workspace)
    if pid is not None:
        raise _already_running(workspace.home, pid)


def _already_running(home: Path, pid: int | str) -> AlreadyRunning:
    return AlreadyRunning(
        f"the bridge already runs on {home} (pid {pid}).",
        remedy="Stop it with '3ox down', or set another BRIDGE_HOME.",
    )


def read_state(workspace: Workspace) -> SupervisorState | None:
    """Give what the running supervisor says of itself, or None if none runs."""
    return None if running_pid(workspace) is None else _read(workspace)


def state_exists(workspace: Workspace) -> bool:
    """Tell whether there is a state file."""
    return _state_file(workspace).exists()


def write_state(workspace: Workspace, state: SupervisorState) -> None:
    """Replace the state file, atomically."""
    file = _state_file(workspace)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.replace(file)


def _read(workspace: Workspace) -> SupervisorState | None:
    try:
        return msgspec.json.decode(_state_file(workspace).read_bytes(), type=SupervisorState)
    except (FileNotFoundError, msgspec.DecodeError):
        # Of another version, or cut off by a power cut: it helps nobody, and must not keep the bridge down.
        return None


@contextlib.contextmanager
def claim(workspace: Workspace, *, grace_s: float) -> Iterator[None]:
    """Be the one supervisor of this workspace; first ends what a killed one has left.

    Args:
        workspace: Which.
        grace_s: Time between SIGTERM and SIGKILL for leftovers.

    Raises:
        AlreadyRunning: Another one lives.
        StartFailed: Something of a killed one cannot be ended.
    """
    file = _pid_file(workspace)
    fd = _locked(workspace)
    try:
        # First of all, so that `down` finds us also while we sweep.
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        sweep_leftovers(workspace, grace_s=grace_s)
        try:
            yield
        finally:
            _state_file(workspace).unlink(missing_ok=True)
    finally:
        # Before the lock goes, so that nobody can lock a file that is about to lose its name.
        file.unlink(missing_ok=True)
        os.close(fd)


def _locked(workspace: Workspace) -> int:
    import fcntl

    file = _pid_file(workspace)
    ends_at_s = time.monotonic() + _PROBE_S
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(fd, 32).decode().strip()
            os.close(fd)
            if time.monotonic() > ends_at_s:
                raise _already_running(workspace.home, pid) from error
            time.sleep(_PROBE_S / 10)
            continue
        # The one before may have removed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), file.stat()):
                return fd
        os.close(fd)


def sweep_leftovers(workspace: Workspace, *, grace_s: float) -> bool:
    """End what a supervisor that was killed has left, and remove its state file.

    Only to be called when none runs. Most of it has ended by itself: the kernel tells the programs when
    their supervisor dies.

    Returns:
        Whether there was anything.

    Raises:
        AlreadyRunning: It runs all the same; somebody has removed its pid file.
        StartFailed: Something cannot be ended.
    """
    state = _read(workspace)
    if state is None:
        return False
    if _is_alive(state):
        if _is_of(state, workspace):
            raise _already_running(workspace.home, state.pid)
        # Whoever wrote it serves another workspace: this one is a copy, taken while that one ran.
        _state_file(workspace).unlink(missing_ok=True)
        return False
    known = {program.pid: program.start_time for program in state.programs if program.pid is not None}

    def left() -> list[int]:
        # Whoever was found once stays on the list: it may lose its parent on the way, by our doing.
        roots = [pid for pid, start_time in known.items() if pid_alive(pid, start_time)]
        roots += find_marked(INSTANCE_MARK, state.instance)
        for pid in {below for root in roots for below in descendants(root)}.union(roots):
            started = process_start_time(pid)
            if started is not None and pid != os.getpid():
                known.setdefault(pid, started)
        return [pid for pid, start_time in known.items() if pid_alive(pid, start_time)]

    found = bool(left())
    if not stop_processes(left, grace_s=grace_s):
        raise StartFailed(
            f"processes of an earlier start cannot be ended: {left()}.",
            remedy="See what they wait for, then try again.",
        )
    _state_file(workspace).unlink(missing_ok=True)
    return found
