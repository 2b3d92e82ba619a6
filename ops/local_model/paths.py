"""Paths and state file of the offline model's process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ops.processes import LINUX, pid_alive
from ops.workspace import Workspace


class ModelPaths(Struct, frozen=True):
    """Paths of the model's process.

    Attributes:
        socket: Socket for leases.
        start_lock: Lock held while a worker starts the process.
        lock: Lock held by the process.
        state: File in which the process describes itself.
    """

    socket: Path
    start_lock: Path
    lock: Path
    state: Path


class ModelState(Struct, frozen=True, kw_only=True):
    """Content of the state file.

    Attributes:
        pid: Pid of the process.
        start_time: See ``ops.processes.process_start_time``.
        model: Name of the model.
        since: When the weights were loaded, RFC 3339.
    """

    pid: int
    start_time: int | None
    model: str
    since: str


def model_paths(workspace: Workspace) -> ModelPaths:
    """Return the paths of the model's process for this workspace."""
    run_dir = workspace.run_dir
    return ModelPaths(
        # Next to the store's socket, whose directory is chosen so that the path is short enough.
        socket=workspace.store_socket.with_name("model.sock"),
        start_lock=run_dir / "model-start.lock",
        lock=run_dir / "model.lock",
        state=run_dir / "model.json",
    )


def running_models(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the offline model loaded on this host as ``3ox status`` shows it; an empty list if none is."""
    try:
        state = msgspec.json.decode(model_paths(workspace).state.read_bytes(), type=ModelState)
    except (OSError, msgspec.MsgspecError):
        return []
    if not pid_alive(state.pid, state.start_time):
        return []
    return [
        {
            "name": state.model,
            "host": os.uname().nodename,
            "pid": state.pid,
            "memory_bytes": resident_bytes(state.pid),
            "since": state.since,
        }
    ]


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process, in bytes; None if it has ended."""
    import subprocess

    try:
        if LINUX:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        listing = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
        return int(listing.stdout) * 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None
