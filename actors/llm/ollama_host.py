"""``OLLAMA_HOST`` as Ollama's own client reads it (``envconfig.Host``)."""

from __future__ import annotations

import ipaddress

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PORT = "11434"


def ollama_url(host: str) -> str:
    """Return the URL of the server: ``SCHEME://HOST:PORT[/PATH]``.

    Args:
        host: A URL, ``HOST``, ``HOST:PORT``, ``:PORT`` or an address of version 6 with or without brackets,
            each with or without a path and quotes. Wildcard addresses of a server become 127.0.0.1.
    """
    text = host.strip().strip("\"'").strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    default = _DEFAULT_PORTS.get(scheme, _PORT) if found else _PORT
    if text == "ollama.com":
        scheme, default = "https", "443"
    netloc, _, path = rest.partition("/")
    login, at, hostport = netloc.rpartition("@")
    name, port = _split(hostport)
    if not (port.isascii() and port.isdecimal() and int(port) <= 65_535):  # noqa: PLR2004
        port = default
    path = path.strip("/")
    return f"{scheme}://{login}{at}{_reachable(name)}:{port}{'/' if path else ''}{path}"


def _split(hostport: str) -> tuple[str, str]:
    """Return host and port, empty if not given; an address of version 6 without brackets has no port."""
    if hostport.startswith("["):
        name, _, rest = hostport[1:].partition("]")
        return name, rest.removeprefix(":")
    if hostport.count(":") == 1:
        name, _, port = hostport.partition(":")
        return name, port
    return hostport, ""


def _reachable(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name if name else "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004
