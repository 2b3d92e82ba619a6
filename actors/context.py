"""What an actor may ask for: the job it runs, and the settings of this process."""

from __future__ import annotations

import threading
from typing import cast

from middleware.context import JobContext, StreamName, current_job
from ops.errors import SettingsError
from ops.logs import get_logger
from ops.settings import LoadedSettings, load_settings

__all__ = ["JobContext", "StreamName", "current_job", "set_settings", "settings"]


log = get_logger(__name__)


class _Process:
    """What holds for the whole process."""

    loaded: LoadedSettings | None = None
    stamp: tuple[int, int, int] | None = None
    #: Held while the file is read again: whoever comes meanwhile waits, or it would get what held before and
    #: refuse a job of a new project for good.
    lock = threading.Lock()


def settings() -> LoadedSettings:
    """Give the settings of this process; read from the environment on first use unless they have been set.

    When 3ox.toml has changed since, it is read again, so that a new project can be used at once; what a
    worker was built from (store, limits, threads) stays as it was. A file that is no longer valid is logged
    and the last valid one stays in force.

    Raises:
        SettingsError: They had to be read for the first time and are not valid.
    """
    if _Process.loaded is None:
        set_settings(load_settings())
    with _Process.lock:
        loaded = cast("LoadedSettings", _Process.loaded)
        stamp = _stamp(loaded)
        if stamp != _Process.stamp:
            try:
                _Process.loaded = loaded = load_settings(loaded.workspace.home)
            except SettingsError as error:
                log.warning("settings.not_reloaded", reason=str(error))
            _Process.stamp = stamp
    return loaded


def set_settings(loaded: LoadedSettings) -> None:
    """Set the settings of this process, for every thread in it."""
    _Process.loaded = loaded
    _Process.stamp = _stamp(loaded)


def _stamp(loaded: LoadedSettings) -> tuple[int, int, int] | None:
    try:
        found = loaded.workspace.settings_file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
