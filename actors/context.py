"""What an actor may ask for: the job it runs, and the settings of this process."""

from __future__ import annotations

from middleware.context import JobContext, StreamName, current_job
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings, load_settings

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
