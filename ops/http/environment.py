"""Proxies and certificates as the environment names them, without an HTTP library: ``3ox up`` can check it.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY   ``http://``, ``https://``, ``socks5://`` or ``socks5h://``; user and
                                     password as ``user:password@``. The lower-case name has precedence.
NO_PROXY                             names (with their subdomains), addresses, networks such as 10.0.0.0/8,
                                     each with ``:port`` if wanted; ``*`` for all; separated by commas.
SSL_CERT_FILE, SSL_CERT_DIR          certificate authorities to trust instead of the system's.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from ops.environment import expand_home, export, variable
from ops.errors import InvalidUrl, SettingsError

_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
#: What desktops write for SOCKS 5.
_SOCKS_ALIAS = "socks"
_HOST = re.compile(r"[A-Za-z0-9._~%-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?")
_BRACKETED = re.compile(r"^\[([^\]]+)\](/\d+)?$")
_NO_PROXY_ENTRY = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:]+))(?::(?P<port>\d+))?"
)


class ProxySetting(Struct, frozen=True):
    """A proxy.

    Attributes:
        url: Its URL; may contain a password, see ``place``.
        variable: The environment variable that names it.
    """

    url: str
    variable: str

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


class _Bypass(Struct, frozen=True):
    """One entry of NO_PROXY; empty fields match anything."""

    host: str
    scheme: str = ""
    port: int | None = None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None

    def matches(self, scheme: str, host: str, port: int) -> bool:
        if (self.scheme and self.scheme != scheme) or (self.port is not None and self.port != port):
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        return host == self.host or host.endswith("." + self.host)


class HttpEnvironment(Struct, frozen=True):
    """What the environment says about outgoing HTTP.

    Attributes:
        proxies: Proxies by the scheme of the requests: ``http``, ``https``, ``all``.
        direct: Whether NO_PROXY is ``*``: no request uses a proxy.
        bypasses: The entries of NO_PROXY.
        ca_file: File with certificate authorities; empty when unset.
        ca_dir: Directory with certificate authorities; empty when unset.
    """

    proxies: dict[str, ProxySetting]
    direct: bool = False
    bypasses: tuple[_Bypass, ...] = ()
    ca_file: str = ""
    ca_dir: str = ""

    def proxy_for(self, scheme: str, host: str, port: int | None = None) -> ProxySetting | None:
        """Return the proxy of a request, or None if it is sent directly.

        Args:
            scheme: ``http`` or ``https``.
            host: Host name or address of the server, without brackets.
            port: Its port; that of the scheme when None.
        """
        proxy = self.proxies.get(scheme, self.proxies.get("all"))
        if proxy is None or self.direct:
            return None
        number = port if port is not None else {"https": 443}.get(scheme, 80)
        name = host.strip("[]").rstrip(".").lower()
        return None if any(entry.matches(scheme, name, number) for entry in self.bypasses) else proxy

    def ssl_context(self) -> ssl.SSLContext:
        """Return a client context that trusts the authorities of the environment, or those of the system."""
        if self.ca_file or self.ca_dir:
            return ssl.create_default_context(cafile=self.ca_file or None, capath=self.ca_dir or None)
        paths = ssl.get_default_verify_paths()
        if any((paths.cafile, paths.capath)):
            return ssl.create_default_context()
        import certifi

        return ssl.create_default_context(cafile=certifi.where())


def http_environment(environ: Mapping[str, str] | None = None) -> HttpEnvironment:
    """Read and check the environment; costs a few microseconds without certificates.

    Args:
        environ: The environment to read; that of the process when None.

    Raises:
        SettingsError: A value is not valid; names its variable, never a password.
    """
    proxies = {}
    for scheme in ("http", "https", "all"):
        name, value = _either(f"{scheme}_proxy", environ)
        if value != "":
            proxies[scheme] = ProxySetting(_proxy_url(value, name), name)
    entries = [part for part in re.split(r"[,\s]+", _either("no_proxy", environ)[1]) if part]
    return HttpEnvironment(
        proxies=proxies,
        direct="*" in entries,
        bypasses=tuple(_bypasses(entries)),
        ca_file=_authorities("SSL_CERT_FILE", environ),
        ca_dir=_authorities("SSL_CERT_DIR", environ),
    )


@functools.lru_cache(maxsize=8)
def shared_ssl_context(ca_file: str, ca_dir: str) -> ssl.SSLContext:
    """Return the context for these authorities, the same one each time; loading them takes 20 ms."""
    return HttpEnvironment(proxies={}, ca_file=ca_file, ca_dir=ca_dir).ssl_context()


def require_url(url: str) -> None:
    """Check the URL of a server without an HTTP library.

    Raises:
        InvalidUrl: It is not valid; the message does not quote it, since it may contain a secret.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port == 0 or any(letter.isspace() for letter in url):
        raise InvalidUrl(
            "The URL is not valid: check host name and port; it must not have spaces.",
            remedy="Write special characters of a user or password as %XX.",
        )
    if parts.scheme not in {"http", "https"}:
        raise InvalidUrl("The URL must begin with http:// or https:// and a host name.")


def export_for_requests() -> None:
    """Write the normalized variables back, and name the certificates as the library ``requests`` expects.

    For Apprise and the OpenTelemetry exporter, which use that library.

    Raises:
        SettingsError: A value is not valid.
    """
    found = http_environment()
    # Our client lets a SOCKS proxy resolve names; what requests calls so is socks5h.
    values = {
        proxy.variable: proxy.url.replace("socks5://", "socks5h://", 1) for proxy in found.proxies.values()
    }
    if found.bypasses:
        name = _either("no_proxy", None)[0]
        values[name] = variable(name).replace("[", "").replace("]", "") if not found.direct else "*"
    authorities = found.ca_file if found.ca_file else found.ca_dir
    if authorities and not variable("REQUESTS_CA_BUNDLE"):
        values["REQUESTS_CA_BUNDLE"] = authorities
    export(values)


def _either(name: str, environ: Mapping[str, str] | None) -> tuple[str, str]:
    """Return the variable of this name, in lower or else in upper case, and its value."""
    value = variable(name, environ)
    return (name, value) if value != "" else (name.upper(), variable(name.upper(), environ))


def _proxy_url(value: str, name: str) -> str:
    url = value if "://" in value else f"http://{value}"
    scheme, _, rest = url.partition("://")
    scheme = "socks5" if scheme.lower() == _SOCKS_ALIAS else scheme.lower()
    url = f"{scheme}://{rest}"
    shown = url if "@" not in url else f"{scheme}://***@{url.rpartition('@')[2]}"
    if scheme not in _SCHEMES:
        raise SettingsError(
            f"{name} names a proxy with the unsupported protocol {scheme!r}: {shown!r}.",
            remedy="Use http://, https:// or socks5://.",
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port == 0 or _HOST.fullmatch(host) is None or parts.query or parts.fragment:
        raise SettingsError(
            f"{name} is not a valid proxy URL: {shown!r}.",
            remedy="Write http://HOST:PORT, and special characters of a password as %XX.",
        )
    return url


def _bypasses(entries: list[str]) -> Iterator[_Bypass]:
    for entry in entries:
        lowered = entry.lower()
        network = _network(lowered)
        if network is not None:
            yield _Bypass(lowered, network=network)
            continue
        found = _NO_PROXY_ENTRY.fullmatch(lowered)
        if found is None:
            continue
        host = (found["v6"] or found["host"]).removeprefix("*").strip(".")
        port = None if found["port"] is None else int(found["port"])
        scheme = found["scheme"] or ""
        if host:
            yield _Bypass(host, "" if scheme == "all" else scheme, port, _network(host))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return an address or network, with or without brackets; None if the text is neither."""
    try:
        return ipaddress.ip_network(_BRACKETED.sub(r"\1\2", text), strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@functools.lru_cache(maxsize=8)
def _load_certificates(path: str, changed_ns: int) -> None:
    """Load a file of certificates to check it, which takes 20 ms, once for each version of the file."""
    del changed_ns
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)


def _authorities(name: str, environ: Mapping[str, str] | None) -> str:
    """Return the file or directory that SSL_CERT_FILE or SSL_CERT_DIR names, or an empty text."""
    value = variable(name, environ)
    if value == "":
        return ""
    path = expand_home(value, name, environ)
    try:
        if name == "SSL_CERT_FILE":
            with Path(path).open("rb") as file:
                _load_certificates(path, os.fstat(file.fileno()).st_mtime_ns)
        elif not any(Path(folder).is_dir() for folder in path.split(":")):
            raise SettingsError(f"{name} names no directory: {path!r}.", remedy="Correct or unset it.")
    except ssl.SSLError as error:
        raise SettingsError(
            f"{name} names {path!r}, which is not a file of certificates in PEM format.",
            remedy="Correct or unset it.",
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{name} names {path!r}, which cannot be read: {error.strerror}.", remedy="Correct or unset it."
        ) from error
    return path
