"""The address of the REST API: from the settings, or from a file that the API process writes (for port 0)."""

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
        settings: ``api_host`` counts.
        port: The port that the API listens on.
    """
    host = _ANY.get(settings.api_host, settings.api_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def url_file(workspace: Workspace) -> Path:
    """Return the file to which the API process writes its address."""
    return workspace.run_dir / "rest.url"


def known_url(loaded: LoadedSettings) -> str:
    """Return the address of the API from that file; without one, from the settings."""
    with contextlib.suppress(FileNotFoundError):
        return url_file(loaded.workspace).read_text()
    return url_of(loaded.settings, loaded.settings.api_port)
