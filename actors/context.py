"""What an actor may ask for: the job it runs, and the settings of this process."""

from __future__ import annotations

import threading
from typing import ClassVar

from middleware.broker.admission import make_scripts
from middleware.broker.scripts import Scripts
from middleware.context import JobContext, StreamName, current_job
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store

__all__ = ["JobContext", "StreamName", "current_job", "set_settings", "settings"]


class _Process:
    """What holds for the whole process."""

    live: LiveSettings | None = None


def settings() -> LoadedSettings:
    """Return the settings of this process; read from the environment on first use unless they have been set.

    When 3ox.toml has changed since, it is read again, so that a new project can be used at once; what a
    worker was built from (store, limits, threads) stays as it was. A file that is no longer valid is logged
    and the last valid one stays in force.

    Raises:
        SettingsError: They had to be read for the first time and are not valid.
    """
    live = _Process.live
    if live is None:
        live = _Process.live = LiveSettings(load_settings())
    return live.loaded()


def set_settings(loaded: LoadedSettings) -> None:
    """Set the settings of this process, for every thread in it."""
    _Process.live = LiveSettings(loaded)


class _SharedScripts:
    """One set of scripts, and so one pool of connections, for all threads of a process."""

    lock: ClassVar[threading.Lock] = threading.Lock()
    place: ClassVar[tuple[str, str] | None] = None
    scripts: ClassVar[Scripts | None] = None


def bridge_scripts(loaded: LoadedSettings) -> Scripts:
    """Give the scripts of the bridge that these settings name; connects to nothing yet.

    Args:
        loaded: Settings of the process.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """
    place = (loaded.store_url, loaded.settings.key_prefix)
    with _SharedScripts.lock:
        if _SharedScripts.scripts is None or _SharedScripts.place != place:
            scripts = make_scripts(Store.open(loaded), loaded.settings)
            _SharedScripts.place, _SharedScripts.scripts = place, scripts
        return _SharedScripts.scripts
