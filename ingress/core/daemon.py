"""What the daemons of all interfaces share: connection, spool, heartbeat, watchdog, shutdown.

    def serve(daemon: Daemon) -> None:
        ...                                # open sockets, watch folders, ...
        daemon.ready()
        while not daemon.stopping.wait(1.0):
            daemon.pulse()

    run_daemon("station", loaded, serve)

A daemon also serves while the store is unavailable: jobs then go to the spool (``ingress.core.acceptance``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge, connect
from ingress.core.daemon_heartbeat import DaemonHeartbeat
from ops.logs import configure_logging, get_logger
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings
from ops.threads import start_duty
from ops.workspace import Workspace

#: Exit code of a daemon whose loop hung.
EXIT_STALLED = 70

log = get_logger(__name__)


def ready_file(workspace: Workspace, name: str) -> Path:
    """Return the file in which a daemon writes its process id when it is ready."""
    return workspace.run_dir / f"{name}.ready"


class Daemon:
    """The daemon of one interface.

    Args:
        name: ``station``, ``rest``, ...
        loaded: The settings.

    Attributes:
        live: The settings as they are in 3ox.toml now.
        bridge: The bridge, for everything except submitting jobs.
        acceptance: Accepts jobs, also while the store is unavailable.
        stopping: Set when the daemon must stop.
    """

    def __init__(self, name: str, loaded: LoadedSettings) -> None:
        self.name = name
        self.loaded = loaded
        self.bridge: Bridge = connect(loaded)
        self.live = LiveSettings(loaded)
        self.bridge.admission.follow_settings(self.live.now)
        self.acceptance = Acceptance(self.bridge)
        self.stopping = threading.Event()
        self._heartbeat = DaemonHeartbeat(
            self.bridge.store, self.bridge.reader.keys, name, stall_s=loaded.settings.stall_s
        )
        self._on_stop: list[Callable[[], None]] = []
        self._ready_file = ready_file(loaded.workspace, name)
        self._unwritten: dict[Path, str] = {}

    def ready(self) -> None:
        """Write the ready file: the daemon serves now."""
        log.info("daemon.ready", daemon=self.name)
        self.announce(self._ready_file, str(os.getpid()))

    def announce(self, file: Path, text: str) -> None:
        """Write a small file that tells other processes about this one; ``pulse`` retries on a full disk.

        Args:
            file: A file in the workspace's ``run_dir``, replaced as a whole.
            text: Its content.
        """
        self._unwritten[file] = text
        error = self._write_files()
        if error is not None:
            log.warning("daemon.not_announced", daemon=self.name, file=str(file), reason=str(error))

    def _write_files(self) -> OSError | None:
        """Write the files that are not written yet; return the error if that fails."""
        for file, text in list(self._unwritten.items()):
            fresh = file.with_suffix(f".{os.getpid()}")
            try:
                fresh.write_text(text)
                fresh.replace(file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    fresh.unlink(missing_ok=True)
                return error
            self._unwritten.pop(file, None)
        return None

    def pulse(self) -> None:
        """Note that the daemon's loop runs; to be called about once a second."""
        self._heartbeat.pulse()
        self._write_files()

    def report(self, **facts: str) -> None:
        """Add facts to the daemon's entry in ``3ox status --json``."""
        self._heartbeat.report(**facts)

    def on_stop(self, act: Callable[[], None]) -> None:
        """Call ``act`` from the signal handler when the daemon is stopped; it must not block."""
        self._on_stop.append(act)

    def stop(self) -> None:
        """Stop the daemon."""
        self.stopping.set()
        for act in self._on_stop:
            act()

    def _watch(self) -> None:
        """Exit when the daemon's loop hangs, so that the supervisor restarts it."""
        limit_s = self.loaded.settings.stall_s
        while not self.stopping.wait(min(1.0, limit_s / 4)):
            if self._heartbeat.stalled_s > limit_s:
                log.error("daemon.stalled", daemon=self.name, limit_s=limit_s)
                os._exit(EXIT_STALLED)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Within this block, send heartbeats, submit the spool, and stop on SIGTERM and SIGINT."""

        def stop(signal_number: int, frame: FrameType | None) -> None:
            del signal_number, frame
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        self.acceptance.start()
        self._heartbeat.start()
        start_duty("watchdog", self._watch, ended=self.stopping.is_set)
        try:
            yield
        finally:
            self.stopping.set()
            self.acceptance.stop()
            self._heartbeat.stop()
            self._ready_file.unlink(missing_ok=True)


def run_daemon(name: str, loaded: LoadedSettings, serve: Callable[[Daemon], None]) -> int:
    """Run a daemon in the foreground until SIGTERM or Ctrl-C, and return the exit code.

    Args:
        name: Name in logs and in ``3ox status``.
        loaded: The settings.
        serve: Starts the interface, calls ``ready``, then ``pulse`` about once a second, and returns when
            ``stopping`` is set.
    """
    loaded.workspace.create()
    configure_logging(loaded, process=name)
    daemon = Daemon(name, loaded)
    with daemon.open():
        serve(daemon)
    log.info("daemon.stopped", daemon=name)
    return 0
