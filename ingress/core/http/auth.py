"""Authentication and authorization: bearer tokens, the sessions of extensions, scopes.

A request is authenticated before a route is chosen (``ingress/rest/request_filter.py``): without a known
caller it gets a 401, whatever its path. The guard of the route then checks the caller's scope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard
from msgspec import Struct

from ingress.core.http.problems import ApiProblem
from ops.tokens import Principal, Scope

_STATE_KEY = "principal"
BEARER_MAX = 512


class Extension(Struct, frozen=True, kw_only=True):
    """Another adapter that the API process serves: the dashboard's pages with their sessions, for instance.

    Attributes:
        routes: Litestar handlers and routers.
        is_open: Returns whether a method and path need no authentication.
        identify: Returns the caller from the path and the request's headers (names in lower case), by a
            cookie for instance; called for requests without a bearer token. It must accept a cookie for the
            extension's own paths only: the API has no defence against cross-site forms.
    """

    routes: list[Any]
    is_open: Callable[[str, str], bool] = lambda method, path: False  # noqa: ARG005
    identify: Callable[[str, dict[str, str]], Principal | None] = lambda path, headers: None  # noqa: ARG005


def bearer_of(headers: dict[str, str]) -> str | None:
    """Return the bearer token of a request, None if it has none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(token) <= BEARER_MAX else None


def remember(scope: Any, principal: Principal | None) -> None:
    """Store the caller in the request's scope."""
    scope.setdefault("state", {})[_STATE_KEY] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Return the caller of a request.

    Raises:
        ApiProblem: The caller is unknown.
    """
    found = connection.scope["state"].get(_STATE_KEY)
    if isinstance(found, Principal):
        return found
    raise unauthorized()


class Requires:
    """A route guard that requires a scope.

    Args:
        scope: The scope that the caller needs.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Refuse callers without the scope.

        Raises:
            ApiProblem: The caller is unknown or lacks the scope.
        """
        principal = principal_of(connection)
        if not principal.may(self.scope):
            raise ApiProblem(
                403,
                "scope",
                f"The token {principal.name!r} has the scope {principal.scope}; {self.scope} is needed.",
                remedy=f"Use a token made with: 3ox token make NAME --scope {self.scope}.",
            )


def requires(scope: Scope) -> Guard:
    """Return a route guard that requires a scope."""
    return Requires(scope)


def unauthorized(
    message: str = "The bearer token is missing or not valid.",
    remedy: str = "Send 'Authorization: Bearer TOKEN'; '3ox token make NAME' makes one.",
) -> ApiProblem:
    """Return the problem of a request with missing or invalid credentials."""
    return ApiProblem(
        401,
        "unauthorized",
        message,
        remedy=remedy,
        headers={"WWW-Authenticate": 'Bearer realm="3ox"'},
    )
