"""Names of the clocks that want the lease: unique, and such that one can tell that a neighbour is dead."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import socket
from pathlib import Path

from ops.processes import pid_alive


@functools.cache
def _place() -> str:
    """Give a word for where a process id means the same process; empty if there is no telling.

    Containers can share a host's name, and have processes of the same number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return ""


def member_name(name: str) -> str:
    """Make a name for this process: ``clock@HOST:PID:PLACE:TOKEN``."""
    return f"{name}@{socket.gethostname()}:{os.getpid()}:{_place()}:{secrets.token_hex(4)}"


def is_dead_neighbour(member: str) -> bool:
    """Tell whether the process of this name ran beside us and has ended."""
    parts = member.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdigit():  # noqa: PLR2004 (of a name)
        return False
    return parts[2] != "" and parts[2] == _place() and not pid_alive(int(parts[1]))
