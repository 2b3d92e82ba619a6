"""The workspace: the directory that holds everything a bridge keeps on this machine.

IN1N.3OX/   drop folder        0UT.3OX/   results        WORKDESK/  files to work on
3ox.toml    settings           3ox.log    JSON lines of every process
.3ox/       private state, mode 0700: valkey/ run/ spool/ ledger/ keys/ worktrees/ undo/ history.db
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from ops.environment import expand_home, variable
from ops.errors import DiskFull, SettingsError, is_disk_full

#: The path of a Unix socket is limited to 108 bytes on Linux and 104 on macOS, including the final zero; the
#: store appends a suffix of its own while it binds.
SOCKET_PATH_MAX_BYTES = 100


def default_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the workspace: ``BRIDGE_HOME`` or ``~/cmd.bridge``, as an absolute path.

    Args:
        environ: The environment to read ``BRIDGE_HOME`` from; that of the process when None.

    Raises:
        SettingsError: The path begins with ``~`` and the home directory is unknown.
    """
    named = variable("BRIDGE_HOME", environ)
    return absolute_home(named if named != "" else "~/cmd.bridge", "BRIDGE_HOME", environ)


def absolute_home(path: str, where: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return a path as the absolute path of a workspace.

    Args:
        path: The path; may begin with ``~``.
        where: Its variable or option, for the error.
        environ: The environment whose ``HOME`` counts; that of the process when None.
    """
    return Path(os.path.abspath(expand_home(path, where, environ)))  # noqa: PTH100 (Path.resolve follows links)


class Workspace(Struct, frozen=True):
    """Paths of one workspace.

    Parameters:
        home: The directory; ``create`` makes it.
    """

    home: Path

    @property
    def inbox(self) -> Path:
        """The drop folder that the station watches."""
        return self.home / "IN1N.3OX"

    @property
    def outbox(self) -> Path:
        """Results."""
        return self.home / "0UT.3OX"

    @property
    def workdesk(self) -> Path:
        """Files to work on."""
        return self.home / "WORKDESK"

    @property
    def settings_file(self) -> Path:
        """The settings file; may be missing."""
        return self.home / "3ox.toml"

    @property
    def log_file(self) -> Path:
        """JSON lines of every process."""
        return self.home / "3ox.log"

    @property
    def state_dir(self) -> Path:
        """Private state, mode 0700."""
        return self.home / ".3ox"

    @property
    def store_dir(self) -> Path:
        """Data of the embedded store."""
        return self.state_dir / "valkey"

    @property
    def run_dir(self) -> Path:
        """Pid files, sockets and locks of a running bridge."""
        return self.state_dir / "run"

    @property
    def spool_dir(self) -> Path:
        """Jobs accepted while the store was unavailable."""
        return self.state_dir / "spool"

    @property
    def undo_dir(self) -> Path:
        """Journals of the actions on dropped files, one folder per day; created when needed."""
        return self.state_dir / "undo"

    @property
    def tasks_dir(self) -> Path:
        """Files with the tasks that are running."""
        return self.state_dir / "tasks"

    @property
    def worktrees_dir(self) -> Path:
        """Worktrees of running and failed tasks, one folder per project; created when needed."""
        return self.state_dir / "worktrees"

    @property
    def ledger_dir(self) -> Path:
        """Sealed receipts, one file per day."""
        return self.state_dir / "ledger"

    @property
    def keys_dir(self) -> Path:
        """Signing keys and hashed tokens."""
        return self.state_dir / "keys"

    @property
    def history_db(self) -> Path:
        """History of finished jobs."""
        return self.state_dir / "history.db"

    @property
    def store_socket(self) -> Path:
        """Socket of the embedded store: in ``run_dir``, or a private directory if that path is too long."""
        inside = self.run_dir / "valkey.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX_BYTES:
            return inside
        import hashlib

        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(f"/tmp/3ox-{os.getuid()}-{digest}/valkey.sock")  # noqa: S108 (owner and mode are checked)

    def create(self) -> None:
        """Create all missing directories, and make ``.3ox`` private.

        Raises:
            DiskFull: The disk has no space for a directory.
            SettingsError: A directory cannot be created, or the socket's directory is not safe.
        """
        try:
            for folder in (self.home, self.inbox, self.outbox, self.workdesk):
                folder.mkdir(parents=True, exist_ok=True)
            self.state_dir.mkdir(mode=0o700, exist_ok=True)
            if stat.S_IMODE(self.state_dir.stat().st_mode) != 0o700:  # noqa: PLR2004 (a mode reads best as itself)
                self.state_dir.chmod(0o700)
            for folder in (self.store_dir, self.run_dir, self.spool_dir, self.ledger_dir, self.keys_dir):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(
                    f"The disk is full: {error.filename} cannot be created.",
                    remedy="Free some space, or set BRIDGE_HOME to a folder on another disk.",
                ) from error
            raise SettingsError(
                f"The workspace {str(self.home)!r} cannot be used: {error.strerror} ({error.filename}).",
                remedy="Set BRIDGE_HOME to a writable directory.",
            ) from error
        self.secure_socket_dir(create=True)

    def secure_socket_dir(self, *, create: bool = False) -> None:
        """Refuse a socket directory that another user owns or can access, or that is a link.

        Applies only when the socket is outside the workspace, in a world-writable directory.

        Args:
            create: Create the directory if it is missing.

        Raises:
            SettingsError: The directory is not safe.
        """
        folder = self.store_socket.parent
        if folder == self.run_dir:
            return
        if create:
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise SettingsError(
                    f"The socket directory {folder} cannot be created: {error.strerror}.",
                    remedy="Set BRIDGE_HOME to a shorter path.",
                ) from error
        try:
            found = folder.lstat()
        except FileNotFoundError:
            return
        private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 == 0
        if found.st_uid != os.getuid() or not private:
            raise SettingsError(
                f"The socket directory {folder} belongs to another user or is accessible to others.",
                remedy="Remove it, or set BRIDGE_HOME to a shorter path.",
            )
