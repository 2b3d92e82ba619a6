"""Who commands, and whether they may: bearer tokens, and whatever else an extension brings.

A request is looked at before any route is chosen (``gate.py``): without somebody who is known it gets a 401,
whatever it asks for. What the one who asks may do is looked at by the guard of the route.
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
    """A part of the door that is not the API: pages with a session of their own, for instance.

    Attributes:
        routes: Litestar handlers and routers.
        is_open: Says of method and path whether anybody may ask for it.
        identify: Finds out who asks from the path and the request's headers (names in lower case), by a
            cookie for instance; asked when there is no bearer token. A cookie is to count for the
            extension's own paths only: the API has no defence against forms of other pages.
    """

    routes: list[Any]
    is_open: Callable[[str, str], bool] = lambda method, path: False  # noqa: ARG005
    identify: Callable[[str, dict[str, str]], Principal | None] = lambda path, headers: None  # noqa: ARG005


def bearer_of(headers: dict[str, str]) -> str | None:
    """Give the bearer token of a request; None if it has none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(token) <= BEARER_MAX else None


def remember(scope: Any, principal: Principal | None) -> None:
    """Note with a request who asks."""
    scope.setdefault("state", {})[_STATE_KEY] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Give who asks.

    Raises:
        ApiProblem: Nobody that is known.
    """
    found = connection.scope["state"].get(_STATE_KEY)
    if isinstance(found, Principal):
        return found
    raise unauthorized()


class Requires:
    """A guard for routes that need a scope.

    Args:
        scope: Which.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Refuse whoever has not got it.

        Raises:
            ApiProblem: Nobody that is known asks, or somebody who may not.
        """
        principal = principal_of(connection)
        if not principal.may(self.scope):
            raise ApiProblem(
                403,
                "scope",
                f"the token {principal.name!r} has the scope {principal.scope}; this needs {self.scope}.",
                remedy=f"Use one made with: 3ox token make NAME --scope {self.scope}.",
            )


def requires(scope: Scope) -> Guard:
    """Make a guard for routes that need a scope."""
    return Requires(scope)


def unauthorized(
    message: str = "this needs a bearer token that is valid.",
    remedy: str = "Send 'Authorization: Bearer TOKEN'; '3ox token make NAME' makes one.",
) -> ApiProblem:
    """Give the problem of a request by nobody that is known."""
    return ApiProblem(
        401,
        "unauthorized",
        message,
        remedy=remedy,
        headers={"WWW-Authenticate": 'Bearer realm="3ox"'},
    )
