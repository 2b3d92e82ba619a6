"""Settings of a running process, read again when ``3ox.toml`` has changed.

New projects and policy rules apply without a restart. What a process is built from (addresses, limits,
threads) is fixed at its start.
"""

from __future__ import annotations

import os
import threading
import time
from typing import NamedTuple

import msgspec

from ops.errors import SettingsError
from ops.logs import get_logger
from ops.settings.load import LoadedSettings, Settings, load_settings

#: A file modified less than this ago may be half written.
_SETTLE_S = 0.02
#: Many programs empty a file before they write it: an empty file counts only after this time.
_EMPTY_S = 1.0
#: Attempts to read a file that keeps changing; after that, the settings read before remain in force.
_SETTLE_TRIES = 10

log = get_logger(__name__)


class _FileVersion(NamedTuple):
    """What identifies a version of the file; all zero while it is missing."""

    mtime_ns: int = 0
    size_bytes: int = 0
    inode: int = 0

    @property
    def age_s(self) -> float:
        """How long ago it was written."""
        return time.time() - self.mtime_ns / 1e9


class LiveSettings:
    """The one reader of a changed ``3ox.toml`` in a process; thread-safe.

    Each call checks the file, which costs one ``stat`` (2 us, and more while other threads want to run): a
    worker with older settings than the process that accepted a job would fail a job of a new project for
    good. A file that is missing or not valid is logged once, and the settings read before remain in force.

    Args:
        loaded: The settings that the process has started with.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._started = loaded
        self._file = os.fspath(loaded.workspace.settings_file)
        #: Version of the file that was read; None while the file may still change within that version.
        self._version: _FileVersion | None = None
        self._content = loaded.content
        self._loaded = loaded
        self._admission = loaded.settings
        self._lock = threading.Lock()
        self._checked_s = float("-inf")

    def loaded(self, since_s: float = float("inf")) -> LoadedSettings:
        """Return the settings in the file now, except ``redis_url`` and ``key_prefix``.

        Returns the same object until the file has changed.

        Args:
            since_s: Time by the monotonic clock; the file is not checked again if that was done after it. By
                default, it is checked.
        """
        if self._checked_s <= since_s:
            self._look()
        return self._loaded

    def now(self) -> Settings:
        """Return the settings of the start with the current projects and policy rules.

        Returns the same object until one of them has changed.
        """
        self._look()
        return self._admission

    def _look(self) -> None:
        began_s = time.monotonic()
        if self._find() == self._version:
            self._checked_s = began_s
            return
        # A thread that comes while the file is read waits for it, or it would use the settings before.
        with self._lock:
            for _ in range(_SETTLE_TRIES):
                version = self._find()
                if version == self._version or self._adopt(version):
                    return

    def _find(self) -> _FileVersion:
        try:
            found = os.stat(self._file)  # noqa: PTH116 (half the time of Path.stat, for each job)
        except OSError:
            return _FileVersion()
        return _FileVersion(found.st_mtime_ns, found.st_size, found.st_ino)

    def _adopt(self, version: _FileVersion) -> bool:
        """Take over this version of the file; returns False if the file changed meanwhile."""
        content = self._read()
        if content == self._content:
            self._version = None if version.age_s < _SETTLE_S else version
            return True
        if content == b"" and version.age_s < _EMPTY_S:
            return True
        if version.age_s < _SETTLE_S:
            time.sleep(_SETTLE_S)
        if self._find() != version:
            return False
        if content is None:
            log.warning("settings.gone", file=self._file)
        elif not self._load(content):
            return False
        self._content, self._version = content, version
        return True

    def _read(self) -> bytes | None:
        try:
            return self._started.workspace.settings_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:  # load_settings reports why it cannot be read
            return b""

    def _load(self, content: bytes | None) -> bool:
        try:
            fresh = load_settings(self._started.workspace.home)
        except SettingsError as error:
            log.warning("settings.not_reloaded", reason=str(error))
            return True
        if fresh.content != content:
            return False
        started = self._started.settings
        settings = msgspec.structs.replace(
            fresh.settings, redis_url=started.redis_url, key_prefix=started.key_prefix
        )
        admission = msgspec.structs.replace(started, projects=settings.projects, policy=settings.policy)
        self._loaded = msgspec.structs.replace(fresh, settings=settings)
        if admission != self._admission:
            self._admission = admission
            log.info("settings.reloaded", projects=list(admission.projects), rules=len(admission.policy))
        return True
