"""Check each request before routing: host, origin, authentication, rate, speed of the body.

It wraps the framework, which answers unknown routes and methods before its own middleware runs: a caller
without a token must not learn even which routes exist.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ingress.core.http.app_state import AppState
from ingress.core.http.auth import Extension, bearer_of, remember, unauthorized
from ingress.core.http.problems import MEDIA_TYPE, ApiProblem, encode, of_bridge_error
from ingress.rest.rate_limit import RateLimit
from ops.errors import BridgeError
from ops.tokens import Principal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.types import ASGIApp, Message, Receive, Send

#: Paths that need no authentication.
OPEN_PATHS = frozenset({"/health", "/version"})
#: Authenticated by a signature instead; see ``hooks.py``.
HOOKS_PREFIX = "/v1/hooks/"
#: Time-out between two parts of a body.
_BODY_PAUSE_S = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class RequestFilter:
    """ASGI application that checks requests and passes them to the wrapped application.

    Args:
        app: The wrapped application.
        app_state: State of the process: tokens, settings, metrics.
        extensions: Further open paths and ways to authenticate.

    Attributes:
        app: The wrapped application.
    """

    def __init__(self, app: ASGIApp, app_state: AppState, extensions: Sequence[Extension] = ()) -> None:
        self.app = app
        self._app_state = app_state
        self._extensions = extensions
        rest, settings = app_state.rest, app_state.loaded.settings
        self._hosts = _LOOPBACK | {settings.api_host.lower(), *(name.lower() for name in rest.allowed_hosts)}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in rest.allowed_origins)
        self._rate_limit = RateLimit(rest.rate_per_s, rest.burst)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a problem.

        Args:
            scope: ASGI scope: HTTP request, websocket or lifespan.
            receive: ASGI function of the server.
            send: ASGI function of the server.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Websockets are not supported; closed before it is accepted, which clients see as a 403.
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        method = scope["method"]
        answering = _Answer(send, method)
        try:
            if method == "HEAD":
                # The framework has no HEAD routes; the answer is that to GET without its body.
                scope = {**scope, "method": "GET"}
            self._check(scope)
            if method == "OPTIONS":
                # The framework's own answer has the methods of one handler of the path only; its refusal of
                # an unknown method has those of all.
                scope = {**scope, "method": "NONE"}
            await self.app(scope, _with_time_out(receive), answering)
        except ApiProblem as problem:
            await answering.refuse(problem)
        except BridgeError as error:
            await answering.refuse(of_bridge_error(error))
        finally:
            self._app_state.metrics.count_request(method if method in _METHODS else "OTHER", answering.status)

    def _check(self, scope: Any) -> None:
        """Check a request.

        Raises:
            ApiProblem: The request is refused.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._check_host(headers.get("host", ""), scope.get("server"))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        principal = self._identify(scope["path"], headers)
        client = scope.get("client")
        wait_s = self._rate_limit.take(
            f"address {client[0] if client else ''}" if principal is None else f"token {principal.name}"
        )
        if wait_s:
            raise ApiProblem(
                429,
                "too-many-requests",
                "Too many requests.",
                remedy=f"Wait {wait_s} s, or raise [rest] rate_per_s in 3ox.toml.",
                headers={"Retry-After": str(wait_s)},
            )
        remember(scope, principal)
        if principal is None and not self._is_open(scope["method"], scope["path"]):
            raise unauthorized()

    def _identify(self, path: str, headers: dict[str, str]) -> Principal | None:
        token = bearer_of(headers)
        if token is not None:
            return self._app_state.tokens.check(token)
        for extension in self._extensions:
            found = extension.identify(path, headers)
            if found is not None:
                return found
        return None

    def _is_open(self, method: str, path: str) -> bool:
        if path in OPEN_PATHS or (method == "POST" and path.startswith(HOOKS_PREFIX)):
            return True
        return any(extension.is_open(method, path) for extension in self._extensions)

    def _check_host(self, host: str, server: tuple[str, int | None] | None) -> None:
        """Refuse unknown host names: a page may point its own name at this machine (rebinding)."""
        name = _host_name(host)
        # A numeric address cannot be rebound; it is ours if the connection was made to it.
        if name in self._hosts or (server is not None and _is_address(name) and name == server[0]):
            return
        raise ApiProblem(
            421,
            "host",
            f"The host name {name!r} is not allowed.",
            remedy="Add the name to [rest] allowed_hosts in 3ox.toml.",
        )

    def _check_origin(self, origin: str | None, host: str) -> None:
        """Refuse requests from pages of other origins; also reads, whose answers such pages could use."""
        if origin is None:
            return
        shown = origin.lower().rstrip("/")
        if shown in self._origins or shown in {f"http://{host.lower()}", f"https://{host.lower()}"}:
            return
        raise ApiProblem(
            403,
            "origin",
            f"Pages from the origin {origin!r} may not call this API.",
            remedy="Add it to [rest] allowed_origins in 3ox.toml.",
        )


_NO_CONTENT, _METHOD_NOT_ALLOWED = 204, 405
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})


def _host_name(host: str) -> str:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return ""
    return "" if name is None else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_time_out(receive: Receive) -> Receive:
    """Return a ``receive`` with a time-out between the parts of the body; after the body there is none."""
    done = False

    async def take() -> Any:
        nonlocal done
        if done:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), _BODY_PAUSE_S)
        except TimeoutError as error:
            raise ApiProblem(
                408, "slow", f"No part of the body arrived for {_BODY_PAUSE_S:g} s.", remedy="Send it again."
            ) from error
        done = not message.get("more_body", False)
        return message

    return take


class _Answer:
    """The response of a request: adds headers, and adapts it to HEAD and OPTIONS.

    Args:
        send: ASGI function of the server.
        method: HEAD gets no body; OPTIONS gets the methods that a refusal names.

    Attributes:
        status: HTTP status sent; 0 before the response has begun.
    """

    def __init__(self, send: Send, method: str) -> None:
        self._send = send
        self._asks_methods = method == "OPTIONS"
        self._wants_no_body = method == "HEAD"
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(self._begin(message))
            if self._wants_no_body:
                # At once: the body of a stream would never end. The server then reports a disconnect.
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._wants_no_body:
            return
        elif self._asks_methods and self.status == _NO_CONTENT and message["type"] == "http.response.body":
            await self._send({**message, "body": b""})
        else:
            await self._send(message)

    def _begin(self, message: Any) -> Any:
        headers = [
            (name, _with_head(value) if name.lower() == b"allow" else value)
            for name, value in message["headers"]
        ]
        self.status = message["status"]
        if self._asks_methods and self.status == _METHOD_NOT_ALLOWED:
            self.status = _NO_CONTENT
            headers = [item for item in headers if item[0].lower() == b"allow"]
        present = {name.lower() for name, _ in headers}
        added = [(name, value) for name, value in _HEADERS if name not in present]
        return {**message, "status": self.status, "headers": [*headers, *added]}

    async def refuse(self, problem: ApiProblem) -> None:
        """Send a problem document, unless the response has begun."""
        if self.status:
            return
        document = encode(problem)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(document)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        await self(
            {
                "type": "http.response.start",
                "status": problem.problem.status,
                "headers": headers,
            }
        )
        await self({"type": "http.response.body", "body": document, "more_body": False})


def _with_head(allow: bytes) -> bytes:
    """Add HEAD to the methods of a path that has GET."""
    names = [name.strip() for name in allow.split(b",")]
    return b", ".join([*names, b"HEAD"] if b"GET" in names and b"HEAD" not in names else names)
