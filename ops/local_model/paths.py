"""Where the one process of the small offline model is found on this host, and what it says of itself."""

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
        socket: On which it is asked for leases.
        start_lock: Held by whoever starts it.
        lock: Held by the one process there is.
        state: What it says of itself.
    """

    socket: Path
    start_lock: Path
    lock: Path
    state: Path


class ModelState(Struct, frozen=True, kw_only=True):
    """What the process writes down about itself.

    Attributes:
        pid: Its id.
        start_time: See ``ops.processes.process_start_time``.
        model: Name of the model.
        since: When the weights were loaded, RFC 3339.
    """

    pid: int
    start_time: int | None
    model: str
    since: str


def model_paths(workspace: Workspace) -> ModelPaths:
    """Give the paths of the model's process for this workspace."""
    run_dir = workspace.run_dir
    return ModelPaths(
        # Beside the store's socket, whose directory was chosen so that the path is not too long.
        socket=workspace.store_socket.with_name("model.sock"),
        start_lock=run_dir / "model-start.lock",
        lock=run_dir / "model.lock",
        state=run_dir / "model.json",
    )


def running_models(workspace: Workspace) -> list[dict[str, Any]]:
    """Give the offline model of this host that is loaded now, if any, as ``3ox status`` shows it."""
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
    """Give how much memory a process occupies; None if it has ended."""
    import subprocess

    try:
        if LINUX:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        said = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
        return int(said.stdout) * 1024
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None
