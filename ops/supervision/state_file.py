"""Files by which ``down``, ``status`` and the next ``up`` find a running ``3ox up``.

``.3ox/run/up.pid`` is locked while the supervisor runs: the lock, not the pid in it, proves that it does, so
a stale file does no harm. ``.3ox/run/up.json`` lists its programs.
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

#: Environment variable of every process that a supervisor starts; its value identifies the supervisor.
INSTANCE_MARK = "BRIDGE_SUPERVISED"
#: ``running_pid`` takes the lock for an instant to test it; a holder that keeps it longer is a supervisor.
_PROBE_S = 0.2


class ProgramState(msgspec.Struct, kw_only=True):
    """State of one supervised program.

    Attributes:
        since: Start time of its current process, RFC 3339.
        restarts: Number of restarts.
        ready: Whether it has passed its readiness check.
        said: Last line of output of its previous process.
    """

    name: str
    pid: int | None = None
    start_time: int | None = None
    since: str | None = None
    restarts: int = 0
    ready: bool = False
    said: str = ""


class SupervisorState(msgspec.Struct, kw_only=True):
    """State of a running supervisor.

    Attributes:
        pid: Its pid.
        instance: Value of ``BRIDGE_SUPERVISED`` in every process that it has started.
        since: Its start time, RFC 3339.
        store_url: URL of the store, password masked.
        home: Real path of the workspace; it differs when this file was copied to another workspace.
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
    """Return the pid of the supervisor that serves this workspace, or None."""
    pid = _locking_pid(workspace)
    if pid is None:
        # The pid file may have been removed while the supervisor runs.
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
        # The file is empty between taking the lock and writing the pid.
        return int(text) if text.strip().isdigit() else None
    finally:
        os.close(fd)
    return None


def require_not_running(workspace: Workspace) -> None:
    """Return if no supervisor serves this workspace.

    Raises:
        AlreadyRunning: A supervisor serves it.
    """
    pid = running_pid(workspace)
    if pid is not None:
        raise _already_running(workspace.home, pid)


def _already_running(home: Path, pid: int | str) -> AlreadyRunning:
    return AlreadyRunning(
        f"The bridge is already running on {home} (pid {pid}).",
        remedy="Stop it with '3ox down', or set another BRIDGE_HOME.",
    )


def read_state(workspace: Workspace) -> SupervisorState | None:
    """Return the state of the running supervisor, or None if none is running."""
    return None if running_pid(workspace) is None else _read(workspace)


def state_exists(workspace: Workspace) -> bool:
    """Return whether there is a state file."""
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
        # Written by another version, or truncated by a power cut: it must not keep the bridge from starting.
        return None


@contextlib.contextmanager
def claim(workspace: Workspace, *, grace_s: float) -> Iterator[None]:
    """Claim the workspace for this supervisor; first stops the processes of a killed one.

    Args:
        workspace: The workspace.
        grace_s: Time between SIGTERM and SIGKILL for those processes, in seconds.

    Raises:
        AlreadyRunning: Another supervisor is running.
        StartFailed: A process of a killed supervisor cannot be stopped.
    """
    file = _pid_file(workspace)
    fd = _locked(workspace)
    try:
        # Before the sweep, so that `down` finds this process during it.
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        sweep_leftovers(workspace, grace_s=grace_s)
        try:
            yield
        finally:
            _state_file(workspace).unlink(missing_ok=True)
    finally:
        # Removed before the lock is released, so that no process can lock a file that is about to be removed.
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
        # The previous holder may have removed the file between open and lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), file.stat()):
                return fd
        os.close(fd)


def sweep_leftovers(workspace: Workspace, *, grace_s: float) -> bool:
    """Stop the processes that a killed supervisor has left, and remove its state file.

    Must be called only when no supervisor is running. Most processes have ended by themselves: the kernel
    signals the programs when their supervisor dies.

    Returns:
        Whether there were any.

    Raises:
        AlreadyRunning: The supervisor is running, though its pid file was removed.
        StartFailed: A process cannot be stopped.
    """
    state = _read(workspace)
    if state is None:
        return False
    if _is_alive(state):
        if _is_of(state, workspace):
            raise _already_running(workspace.home, state.pid)
        # Its writer serves another workspace: this one is a copy taken while the other was running.
        _state_file(workspace).unlink(missing_ok=True)
        return False
    known = {program.pid: program.start_time for program in state.programs if program.pid is not None}

    def left() -> list[int]:
        # Processes found once stay on the list: stopping their parent hides them from ``descendants``.
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
            f"Processes of an earlier start cannot be stopped: {left()}.",
            remedy="Stop them by hand and try again.",
        )
    _state_file(workspace).unlink(missing_ok=True)
    return found
