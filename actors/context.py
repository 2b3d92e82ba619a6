"""What an actor can use: the running job, the settings, and the scripts of the store."""

from __future__ import annotations

import threading
from typing import ClassVar

from middleware.broker.admission import make_scripts
from middleware.broker.scripts import Scripts
from middleware.context import JobContext, current_job
from middleware.job.records import StreamName
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store

__all__ = ["JobContext", "StreamName", "current_job", "set_settings", "settings"]


class _ProcessSettings:
    """The settings of this process, shared by its threads."""

    live: LiveSettings | None = None


def settings(since_s: float = float("inf")) -> LoadedSettings:
    """Return the settings of this process; loads them at the first call unless they have been set.

    A changed 3ox.toml is read again, see ``ops.settings.live``; what a worker was built from (store, limits,
    threads) does not change.

    Args:
        since_s: Time by the monotonic clock: whether the file has changed is not checked again if it was
            checked after that. By default, it is.

    Raises:
        SettingsError: They are loaded for the first time and are not valid.
    """
    live = _ProcessSettings.live
    if live is None:
        live = _ProcessSettings.live = LiveSettings(load_settings())
    return live.loaded(since_s)


def set_settings(loaded: LoadedSettings) -> None:
    """Set the settings of this process, for all its threads."""
    _ProcessSettings.live = LiveSettings(loaded)


class _SharedScripts:
    """One ``Scripts`` object, and thus one connection pool, for all threads of a process."""

    lock: ClassVar[threading.Lock] = threading.Lock()
    key: ClassVar[tuple[str, str] | None] = None
    scripts: ClassVar[Scripts | None] = None


def bridge_scripts(loaded: LoadedSettings) -> Scripts:
    """Return the scripts of the store in these settings; does not connect yet.

    Args:
        loaded: Settings of the process.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """
    key = (loaded.store_url, loaded.settings.key_prefix)
    with _SharedScripts.lock:
        if _SharedScripts.scripts is None or _SharedScripts.key != key:
            scripts = make_scripts(Store.open(loaded), loaded.settings)
            _SharedScripts.key, _SharedScripts.scripts = key, scripts
        return _SharedScripts.scripts
