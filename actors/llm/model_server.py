"""Where a model server is and how it is asked: what a provider knows before the model library is imported."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

from ops.errors import JobRefused
from ops.http.environment import HttpEnvironment, ProxySetting
from ops.settings.model_services import Protocol

#: Hosts of the services whose address the library knows.
_HOSTS = {"google": "generativelanguage.googleapis.com"}


class ModelServer(Struct, frozen=True, kw_only=True):
    """A model server.

    Attributes:
        protocol: Its protocol.
        base_url: Base URL, may contain ``USER:PASSWORD@``; empty for services with one address.
        key: API key; empty for none. Never part of an error or log line.
        key_variable: Environment variable of the key, for remedies.
        silence_s: Read timeout, in seconds.
        official: Whether the address is that of the vendor itself.
        region: Region of the service, for Bedrock.
    """

    protocol: Protocol
    base_url: str = ""
    key: str = ""
    key_variable: str = ""
    silence_s: float = 120.0
    official: bool = False
    region: str = ""

    @property
    def address(self) -> str:
        """``HOST:PORT``, or the name of the service, for messages."""
        if self.base_url == "":
            return self.protocol
        parts = urlsplit(self.base_url)
        port = {"http": 80}.get(parts.scheme, 443) if parts.port is None else parts.port
        return f"{parts.hostname}:{port}"

    @property
    def shown_url(self) -> str:
        """The base URL without user and password, for messages."""
        head, separator, rest = self.base_url.partition("://")
        host, slash, path = rest.partition("/")
        return f"{head}{separator}{host.rpartition('@')[2]}{slash}{path}"

    def proxy(self, environment: HttpEnvironment) -> ProxySetting | None:
        """Return the proxy that the environment names for this server, or None.

        Args:
            environment: The environment.
        """
        url = self.base_url if self.base_url else f"https://{_HOSTS.get(self.protocol, '')}"
        parts = urlsplit(url)
        host = "" if parts.hostname is None else parts.hostname
        return environment.proxy_for(parts.scheme, host, parts.port)

    def require_usable(self) -> None:
        """Check the base URL and the key.

        Raises:
            JobRefused: One of them cannot be used.
        """
        if not (self.key.isascii() and (self.key == "" or self.key.isprintable())):
            raise JobRefused(
                "The API key contains control or non-ASCII characters.",
                remedy=f"Set it again in {self.key_variable}, without line breaks.",
            )
        if self.base_url != "" and not _is_url(self.base_url):
            raise JobRefused(
                f"The base URL {self.shown_url!r} is not valid.",
                remedy="Write the provider's base URL as https://host[:port][/path].",
            )


def _is_url(url: str) -> bool:
    parts = urlsplit(url)
    try:
        port = parts.port
        host = "" if parts.hostname is None else parts.hostname
        host.encode("idna")
    except (ValueError, UnicodeError):
        return False
    return parts.scheme in ("http", "https") and host != "" and (port is None or port > 0)
