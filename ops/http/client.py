"""The one client for outgoing HTTP: proxies and certificates of the environment, time-outs, bounded bodies.

``EnvironmentTransport`` is for libraries that take one, such as python-telegram-bot; ``request`` sends one
request. Import this module where it is used: importing httpx takes 130 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx
from msgspec import Struct

from ops.errors import InvalidUrl, RequestFailed
from ops.http.environment import HttpEnvironment, ProxySetting, http_environment, shared_ssl_context

#: Default timeout of each step: connect, send, receive.
TIMEOUT_S = 30.0
_CONNECTIONS_MAX = 100
#: A request may take this many timeouts altogether: to connect, to send, for the headers.
_STEPS = 3
#: Time for a response body that only explains an error, in seconds.
_BODY_S = 2.0
_BODY_MAX_BYTES = 65_536

for _name in ("httpx", "httpcore"):
    # At level INFO they log every URL, passwords and tokens included.
    logging.getLogger(_name).setLevel(logging.WARNING)


class HttpResponse(Struct, frozen=True):
    """A server's response.

    Attributes:
        status: HTTP status.
        headers: Its headers; names in lower case.
        body: The beginning of its body.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Sends each request through the proxy that the environment names for its host, or directly.

    Args:
        connections_max: Maximum number of connections per proxy, and of direct ones.
        environment: Proxies and certificates; those of this process when None.

    Raises:
        SettingsError: A variable of the environment is not valid.
    """

    def __init__(
        self, *, connections_max: int = _CONNECTIONS_MAX, environment: HttpEnvironment | None = None
    ) -> None:
        self._environment = http_environment() if environment is None else environment
        self._limits = httpx.Limits(max_connections=connections_max, max_keepalive_connections=20)
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        proxy = self.proxy_for(request.url)
        return await self._transport(proxy).handle_async_request(request)

    def proxy_for(self, url: httpx.URL) -> ProxySetting | None:
        """Return the proxy of a URL, or None."""
        return self._environment.proxy_for(url.scheme, url.host, url.port)

    def _transport(self, proxy: ProxySetting | None) -> httpx.AsyncHTTPTransport:
        key = "" if proxy is None else proxy.url
        if key not in self._transports:
            context = shared_ssl_context(self._environment.ca_file, self._environment.ca_dir)
            self._transports[key] = httpx.AsyncHTTPTransport(
                verify=context, limits=self._limits, proxy=_httpx_proxy(proxy, context)
            )
        return self._transports[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; the transport can be used again."""
        transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            await transport.aclose()


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    body_max_bytes: int = _BODY_MAX_BYTES,
) -> HttpResponse:
    """Send one request; redirects are not followed, because they would send it to another server.

    The status decides: a body that breaks off or never ends is cut without an error.

    Args:
        method: HTTP method.
        url: ``http://`` or ``https://``; a user and password in it become Basic authentication.
        headers: Request headers besides ``Host`` and ``Content-Length``.
        body: Request body.
        timeout_s: Timeout of each step, in seconds: connect, send, receive; three times that for all of them.
        body_max_bytes: How much of the response body is read.

    Raises:
        RequestFailed: There was no response; names the host and the proxy, never the path or a password.
        InvalidUrl: The URL is not valid.
        SettingsError: A variable of the environment is not valid.
    """
    more = {"Accept-Encoding": "identity", **({} if headers is None else headers)}
    target = parse_url(url)
    return asyncio.run(
        _send(method, target, headers=more, body=body, timeout_s=timeout_s, body_max_bytes=body_max_bytes)
    )


async def _send(
    method: str,
    target: httpx.URL,
    *,
    headers: dict[str, str],
    body: bytes,
    timeout_s: float,
    body_max_bytes: int,
) -> HttpResponse:
    transport = EnvironmentTransport(connections_max=1)
    async with httpx.AsyncClient(transport=transport, timeout=timeout_s, trust_env=False) as client:
        with _explained(target.host, transport.proxy_for(target), timeout_s):
            async with asyncio.timeout(_STEPS * timeout_s):
                outgoing = client.build_request(method, target, headers=headers, content=body)
                response = await client.send(outgoing, stream=True)
        try:
            return HttpResponse(
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await _beginning(response, body_max_bytes, min(timeout_s, _BODY_S)),
            )
        finally:
            await response.aclose()


def parse_url(url: str) -> httpx.URL:
    """Return a checked URL.

    Raises:
        InvalidUrl: It is not valid; the message does not quote it, since it may contain a secret.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        # Their messages quote parts of it: not even kept as the cause.
        raise InvalidUrl(
            "The URL is not valid: check its host name, and that the port is a number.",
            remedy="Write special characters of a user or password as %XX.",
        ) from None
    if parsed.scheme not in {"http", "https"} or parsed.host == "":
        raise InvalidUrl("The URL must begin with http:// or https:// and a host name.")
    return parsed


async def _beginning(response: httpx.Response, limit_bytes: int, within_s: float) -> bytes:
    body = bytearray()
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(within_s):
            async for piece in response.aiter_raw(min(limit_bytes, _BODY_MAX_BYTES)):
                body += piece
                if len(body) >= limit_bytes:
                    break
    return bytes(body[:limit_bytes])


@contextlib.contextmanager
def _explained(host: str, proxy: ProxySetting | None, timeout_s: float) -> Iterator[None]:
    """Raise the errors of httpx as ours."""
    through = "" if proxy is None else f" through the proxy {proxy.place} ({proxy.variable})"
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise RequestFailed(f"{host}{through} did not answer within {timeout_s:g} s.") from error
    except httpx.ProxyError as error:
        raise RequestFailed(f"{host} cannot be reached{through}: {error}.") from error
    except httpx.HTTPError as error:
        cause = _cause(error)
        if isinstance(cause, socket.gaierror):
            name = host if proxy is None else proxy.place
            raise RequestFailed(f"The host {name} cannot be resolved: {cause.strerror}.") from error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
        raise RequestFailed(
            f"{host} cannot be reached{through}: {reason or type(error).__name__}."
        ) from error


def _cause(error: BaseException) -> BaseException:
    """Return the innermost operating system error, or the error itself."""
    found: BaseException = error
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            found = current
        current = current.__cause__ if current.__cause__ is not None else current.__context__
    return found


def _httpx_proxy(proxy: ProxySetting | None, context: ssl.SSLContext) -> httpx.Proxy | None:
    if proxy is None:
        return None
    return httpx.Proxy(proxy.url, ssl_context=context if proxy.url.startswith("https:") else None)
