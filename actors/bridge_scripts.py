"""The scripts of this process's bridge, for actors that keep something in the store beside their result."""

from __future__ import annotations

import threading
from typing import ClassVar

from middleware.broker.factory import make_scripts
from middleware.broker.scripts import Scripts
from ops.settings.load import LoadedSettings
from ops.store.client import Store


class _Process:
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
    with _Process.lock:
        if _Process.scripts is None or _Process.place != place:
            _Process.place, _Process.scripts = place, make_scripts(Store.open(loaded), loaded.settings)
        return _Process.scripts
