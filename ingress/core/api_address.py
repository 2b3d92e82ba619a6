"""The address of the REST API: from the settings, or from a file that the API process writes (for port 0)."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from ops.errors import StartFailed
from ops.settings.load import LoadedSettings, Settings
from ops.workspace import Workspace

#: Addresses that mean "all network interfaces", and the loopback address to show instead.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (shown, not listened on)

_BACKLOG = 1024


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


def bind_api(settings: Settings) -> socket.socket:
    """Return a socket that listens on the address of the REST API.

    Raises:
        StartFailed: The address cannot be used.
    """
    remedy = "Set BRIDGE_API_HOST or BRIDGE_API_PORT to another address; port 0 selects a free port."
    return bind_tcp(settings.api_host, settings.api_port, "The REST API", remedy)


def bind_tcp(host: str, port: int, owner: str, remedy: str) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: Name or address.
        port: Port; 0 selects a free one.
        owner: What listens, for the error.
        remedy: What to do if the address cannot be used.

    Raises:
        StartFailed: The address cannot be used.
    """
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol: asyncio sets TCP_NODELAY only then, and without TCP_NODELAY answers on
        # a kept-alive connection are 40 ms late.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # From here on connections wait, and are not refused, while the application starts.
        listening.listen(_BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise StartFailed(
            f"{owner} cannot listen on {host}:{port}: {error.strerror}.", remedy=remedy
        ) from error
    listening.setblocking(False)
    return listening
