"""The lines that were typed: a file in ``.3ox``, for its owner only, with a bound."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from prompt_toolkit.history import History

from ops.lockfile import claim_lock
from ops.workspace import Workspace

#: So many lines are kept when the file is tidied, which it is when it has twice as many.
KEPT_MAX = 1000
_LINE_MAX = 10_000


def history_file(workspace: Workspace) -> Path:
    """Give the file in which the shells of this workspace keep what was typed."""
    return workspace.state_dir / "shell_history"


class LineHistory(History):
    """The lines of all shells of a workspace, each a JSON string on a line of its own.

    A line that begins with a space is not kept, as in other shells.

    Args:
        path: The file; made with the first line, mode 0600.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def lines(self) -> list[str]:
        """Give the lines that are kept, oldest first; one that cannot be read is left out."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        found = []
        for row in raw.splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(msgspec.json.decode(row, type=str))
        return found

    def load_history_strings(self) -> Iterable[str]:
        """Give the lines, latest first, as prompt_toolkit wants them."""
        return reversed(self.lines())

    def append_string(self, string: str) -> None:
        """Take a line that was typed."""
        if string.strip() and not string.startswith(" "):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Add a line to the file, in one write."""
        data = msgspec.json.encode(string[:_LINE_MAX].encode(errors="replace").decode()) + b"\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def tidy(self) -> None:
        """Drop the oldest lines of a file that has grown to twice its bound."""
        lock = claim_lock(self._path.with_suffix(".lock"), wait=False)
        if lock is None:
            return  # another shell is at it
        try:
            found = self.lines()
            if len(found) > 2 * KEPT_MAX:
                fresh = self._path.with_suffix(".new")
                fresh.touch(mode=0o600)
                fresh.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in found[-KEPT_MAX:]))
                fresh.replace(self._path)
        finally:
            self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(lock)
