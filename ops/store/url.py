"""URLs of the store: parse one, or mask the password in it. Loads no client, so settings can use it."""

from __future__ import annotations

import re

from msgspec import Struct

from ops.errors import SettingsError

#: Besides the user information, the full client accepts a password as a query option.
_OPTION_TO_MASK = r"(?<=[?&]password=)[^&#]+"


class Endpoint(Struct, frozen=True, kw_only=True):
    """Address of the store.

    Attributes:
        url: The URL from the settings, without its password.
        path: Path of a Unix socket; empty for TCP.
    """

    url: str
    path: str = ""
    host: str = ""
    port: int = 6379
    username: str = ""
    password: str = ""
    database: int = 0


def parse_endpoint(url: str) -> Endpoint:
    """Parse a ``redis://`` or ``unix://`` URL.

    Raises:
        SettingsError: The scheme is not supported or the URL is malformed.
    """
    from urllib.parse import parse_qs, unquote, urlsplit

    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        database = int(
            (options.get("db") or [parts.path.lstrip("/") if parts.scheme == "redis" else ""])[0] or 0
        )
        port = 6379 if parts.port is None else parts.port
    except ValueError:
        raise malformed("redis://[user:password@]host:port/db or unix:///path/to/socket") from None
    if parts.scheme not in {"redis", "unix"} or (parts.scheme == "unix" and not parts.path):
        raise SettingsError(
            f"Unsupported scheme in redis_url {mask_password(url)!r}.",
            remedy="Use redis://, rediss://, unix:// or sentinel://host:port,host:port/service.",
        )
    return Endpoint(
        url=mask_password(url),
        path=unquote(parts.path) if parts.scheme == "unix" else "",
        host=parts.hostname or "127.0.0.1",
        port=port,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=database,
    )


def malformed(form: str) -> SettingsError:
    """Return the error for a ``redis_url`` that cannot be parsed.

    The error quotes nothing of the URL, and must be raised ``from None``: any part of it may belong to a
    password that contains a slash.

    Args:
        form: The expected form.
    """
    return SettingsError(
        "redis_url is not valid.",
        remedy=f"Write it as {form}; / : @ ? # in a password as %2F %3A %40 %3F %23.",
    )


def mask_password(url: str) -> str:
    """Return the URL with its password masked, for logs and listings."""
    masked = re.sub(_OPTION_TO_MASK, "***", url) if "password=" in url else url
    scheme, separator, rest = masked.partition("://")
    credentials, at, address = rest.rpartition("@")
    if not at or ":" not in credentials:
        return f"{scheme}{separator}{rest}"
    return f"{scheme}{separator}{credentials.split(':', 1)[0]}:***@{address}"


def passwords_in(url: str) -> list[str]:
    """Return the passwords that ``mask_password`` masks, as written in the URL."""
    credentials = url.partition("://")[2].rpartition("@")[0]
    found = [credentials.partition(":")[2], *re.findall(_OPTION_TO_MASK, url)]
    return [text for text in found if text]
