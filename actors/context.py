"""What an actor may ask for: the job it runs, and the settings of this process."""

from __future__ import annotations

from middleware.context import JobContext, StreamName, current_job
from ops.settings import LoadedSettings, load_settings

__all__ = ["JobContext", "StreamName", "current_job", "set_settings", "settings"]


class _Process:
    """What holds for the whole process."""

    loaded: LoadedSettings | None = None


def settings() -> LoadedSettings:
    """Give the settings of this process; read from the environment on first use unless they have been set.

    Raises:
        SettingsError: They had to be read and are not valid.
    """
    if _Process.loaded is None:
        _Process.loaded = load_settings()
    return _Process.loaded


def set_settings(loaded: LoadedSettings) -> None:
    """Set the settings of this process, for every thread in it."""
    _Process.loaded = loaded
