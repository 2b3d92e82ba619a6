"""Projects and policy rules as they stand in ``3ox.toml`` now, for a process that stays.

Whoever adds a project or forbids something does not stop the bridge for it. Everything else in the file
counts from the next start of a process: what is built from it (addresses, limits, threads) is built once.
"""

from __future__ import annotations

import threading
import time

import msgspec

from ops.errors import SettingsError
from ops.logs import get_logger
from ops.settings import LoadedSettings, Settings, load_settings

#: Asking for the file's time costs 2 us; a door that takes thousands of jobs a second need not for each.
_LOOK_S = 0.05
#: However often the file is written, it is not read more often.
_READ_S = 1.0
#: Where the file is not to be seen: an editor may be about to put the new one in its place.
_GONE = (0, 0, 0)

log = get_logger(__name__)


class LiveSettings:
    """The settings of a process, with the projects and the policy rules of this moment.

    Args:
        loaded: What the process has started with.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._workspace = loaded.workspace
        self._settings = loaded.settings
        # The file may have changed since it was read: the first look reads it again.
        self._stamp: tuple[int, int, int] | None = None
        self._look_at_s = 0.0
        self._lock = threading.Lock()

    def now(self) -> Settings:
        """Give the settings; the same object until something in them has changed.

        A file that is not valid, or gone, is logged once, and what was read last holds.
        """
        if time.monotonic() >= self._look_at_s:
            # Whoever comes while it is read waits, or a job of a new project would be refused.
            with self._lock:
                if time.monotonic() >= self._look_at_s:
                    self._look()
        return self._settings

    def _look(self) -> None:
        # Before it is read: what is written meanwhile has another one.
        stamp, wait_s = self._find_stamp(), _LOOK_S
        if stamp != self._stamp:
            is_first, self._stamp = self._stamp is None, stamp
            if stamp != _GONE:
                self._read()
                wait_s = _READ_S
            elif not is_first:
                log.warning("settings.gone", file=str(self._workspace.settings_file))
        self._look_at_s = time.monotonic() + wait_s

    def _find_stamp(self) -> tuple[int, int, int]:
        try:
            found = self._workspace.settings_file.stat()
        except OSError:
            return _GONE
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> None:
        try:
            fresh = load_settings(self._workspace.home).settings
        except SettingsError as error:
            log.warning("settings.not_reloaded", reason=str(error))
            return
        settings = msgspec.structs.replace(self._settings, projects=fresh.projects, policy=fresh.policy)
        if settings != self._settings:
            self._settings = settings
            log.info("settings.reloaded", projects=list(settings.projects), rules=len(settings.policy))
