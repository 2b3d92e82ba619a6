"""Where the REST API is: the settings say it, or with port 0 the process that serves it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ops.settings.load import LoadedSettings, Settings
from ops.workspace import Workspace

#: Addresses that mean "all of this machine's", and by which of them it is best called here.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (shown, not listened on)


def url_of(settings: Settings, port: int) -> str:
    """Give the address of the API.

    Args:
        settings: Say the host.
        port: On which it is served.
    """
    host = _ANY.get(settings.api_host, settings.api_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def url_file(workspace: Workspace) -> Path:
    """Give the file in which the process that serves says where."""
    return workspace.run_dir / "rest.url"


def known_url(loaded: LoadedSettings) -> str:
    """Give the address of a bridge that runs; what the settings say if nobody has said otherwise."""
    with contextlib.suppress(FileNotFoundError):
        return url_file(loaded.workspace).read_text()
    return url_of(loaded.settings, loaded.settings.api_port)
