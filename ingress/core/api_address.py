"""The address of the REST API: from the settings, or with port 0 from the process that serves it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ops.settings.load import LoadedSettings, Settings
from ops.workspace import Workspace

#: Addresses that mean "all network interfaces", and the loopback address to show instead.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (shown, not listened on)


def url_of(settings: Settings, port: int) -> str:
    """Return the address of the API.

    Args:
        settings: The settings, which name the host.
        port: The port on which it is served.
    """
    host = _ANY.get(settings.api_host, settings.api_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def url_file(workspace: Workspace) -> Path:
    """Return the file in which the process that serves the API writes its address."""
    return workspace.run_dir / "rest.url"


def known_url(loaded: LoadedSettings) -> str:
    """Return the address of the API: as its process wrote it, or from the settings."""
    with contextlib.suppress(FileNotFoundError):
        return url_file(loaded.workspace).read_text()
    return url_of(loaded.settings, loaded.settings.api_port)
