"""History of the lines typed in shells: a file in ``.3ox``, readable by its owner, limited in size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from prompt_toolkit.history import History

from ops.files import write_durably
from ops.lockfile import try_lock
from ops.logs import get_logger
from ops.workspace import Workspace

#: Lines that remain when the file is shortened, which happens when it has twice as many.
KEPT_MAX = 1000
_LINE_MAX_CHARS = 10_000

log = get_logger(__name__)


def history_file(workspace: Workspace) -> Path:
    """Return the history file of the shells of a workspace."""
    return workspace.state_dir / "shell_history"


class LineHistory(History):
    """The lines of all shells of a workspace, one JSON string per line of the file.

    Lines that begin with a space are not recorded, as in other shells.

    Args:
        path: The file; created with the first line, mode 0600.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def lines(self) -> list[str]:
        """Return the recorded lines, oldest first, without those that are damaged."""
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
        """Return the lines, latest first, as prompt_toolkit expects them."""
        return reversed(self.lines())

    def append_string(self, string: str) -> None:
        """Record a line, unless it is blank or begins with a space."""
        if string.strip() and not string.startswith(" "):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Append a line to the file in one write; if that fails, the line is only logged as not kept."""
        data = msgspec.json.encode(string[:_LINE_MAX_CHARS].encode(errors="replace").decode()) + b"\n"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("shell.line_not_kept", reason=str(error))

    def tidy(self) -> None:
        """Shorten a file that has twice as many lines as are kept; if that fails, it is logged."""
        try:
            self._tidy()
        except OSError as error:
            log.warning("shell.history_not_tidied", reason=str(error))

    def _tidy(self) -> None:
        lock = try_lock(self._path.with_suffix(".lock"))
        if lock is None:
            return  # another shell does it
        try:
            found = self.lines()
            if len(found) > 2 * KEPT_MAX:
                kept = b"".join(msgspec.json.encode(line) + b"\n" for line in found[-KEPT_MAX:])
                write_durably(self._path, kept)
        finally:
            self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(lock)
