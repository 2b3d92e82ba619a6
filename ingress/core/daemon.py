"""What every ingress daemon has in common: its connection, its spool, its sign of life, its end.

    def serve(daemon: Daemon) -> None:
        ...                                # open the door
        daemon.ready()
        while not daemon.stopping.wait(1.0):
            daemon.pulse()

    run_daemon("station", loaded, serve)

A daemon serves while the store is away: what it accepts then goes to the spool (``ingress.core.acceptance``).
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
from ingress.core.daemon_heartbeat import Presence
from ops.logs import configure_logging, get_logger
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings
from ops.threads import start_duty
from ops.workspace import Workspace

#: Exit code of a daemon whose loop hung, as systemd would report a failed watchdog.
EXIT_STALLED = 70

log = get_logger(__name__)


def ready_file(workspace: Workspace, name: str) -> Path:
    """Give the file in which a daemon writes its process id as soon as it serves."""
    return workspace.run_dir / f"{name}.ready"


class Daemon:
    """An open door.

    Args:
        name: ``station``, ``rest``, ...
        loaded: Its settings.

    Attributes:
        live: The settings as they are in the file now.
        bridge: For everything but taking jobs in.
        acceptance: Takes jobs in, into the spool while the store is away.
        stopping: Set when the daemon is to end.
    """

    def __init__(self, name: str, loaded: LoadedSettings) -> None:
        self.name = name
        self.loaded = loaded
        self.bridge: Bridge = connect(loaded)
        self.live = LiveSettings(loaded)
        self.bridge.admission.follow_settings(self.live.now)
        self.acceptance = Acceptance(self.bridge)
        self.stopping = threading.Event()
        self._presence = Presence(
            self.bridge.store, self.bridge.reader.keys, name, stall_s=loaded.settings.stall_s
        )
        self._on_stop: list[Callable[[], None]] = []
        self._ready_file = ready_file(loaded.workspace, name)
        self._owed: dict[Path, str] = {}

    def ready(self) -> None:
        """Say that the door is open."""
        log.info("daemon.ready", daemon=self.name)
        self.announce(self._ready_file, str(os.getpid()))

    def announce(self, file: Path, text: str) -> None:
        """Write a small file by which others find us; while the disk takes nothing, ``pulse`` tries again.

        Args:
            file: Below the workspace's ``run_dir``; replaced as a whole.
            text: What it is to hold.
        """
        self._owed[file] = text
        error = self._write_owed()
        if error is not None:
            log.warning("daemon.not_announced", daemon=self.name, file=str(file), reason=str(error))

    def _write_owed(self) -> OSError | None:
        """Write what is not written yet; gives what is in the way."""
        for file, text in list(self._owed.items()):
            fresh = file.with_suffix(f".{os.getpid()}")
            try:
                fresh.write_text(text)
                fresh.replace(file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    fresh.unlink(missing_ok=True)
                return error
            self._owed.pop(file, None)
        return None

    def pulse(self) -> None:
        """Say that the loop turns; see ``Presence.pulse``."""
        self._presence.pulse()
        self._write_owed()

    def tell(self, **facts: str) -> None:
        """Add facts to the daemon's entry in ``3ox status --json``."""
        self._presence.tell(**facts)

    def on_stop(self, act: Callable[[], None]) -> None:
        """Have something done when the daemon is told to end, from the signal handler: it must not block."""
        self._on_stop.append(act)

    def stop(self) -> None:
        """Tell the daemon to end."""
        self.stopping.set()
        for act in self._on_stop:
            act()

    def _watch(self) -> None:
        """End the process when its loop hangs: whoever supervises it starts it again."""
        limit_s = self.loaded.settings.stall_s
        while not self.stopping.wait(min(1.0, limit_s / 4)):
            if self._presence.stalled_s > limit_s:
                log.error("daemon.stalled", daemon=self.name, limit_s=limit_s)
                os._exit(EXIT_STALLED)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Within this block the daemon beats, hands over its spool, and hears SIGTERM and SIGINT."""

        def hear(signal_number: int, frame: FrameType | None) -> None:
            del signal_number, frame
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, hear)
        self.acceptance.start()
        self._presence.start()
        start_duty("watchdog", self._watch, ended=self.stopping.is_set)
        try:
            yield
        finally:
            self.stopping.set()
            self.acceptance.stop()
            self._presence.stop()
            self._ready_file.unlink(missing_ok=True)


def run_daemon(name: str, loaded: LoadedSettings, serve: Callable[[Daemon], None]) -> int:
    """Run a daemon in the foreground until SIGTERM or Ctrl-C.

    Args:
        name: In logs and in ``3ox status``.
        loaded: Its settings.
        serve: Opens the door, calls ``ready``, then ``pulse`` about once a second, and returns when
            ``stopping`` is set.

    Returns:
        The exit code.
    """
    loaded.workspace.create()
    configure_logging(loaded, process=name)
    daemon = Daemon(name, loaded)
    with daemon.open():
        serve(daemon)
    log.info("daemon.stopped", daemon=name)
    return 0
