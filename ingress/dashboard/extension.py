"""The dashboard as an extension of the API server: routes, open paths, authentication by session cookie.

A session is valid for the dashboard's own paths only: the API takes bearer tokens, which a foreign page
cannot make a browser send.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from litestar import Request, Response, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException

from ingress.core.http.app_state import AppState
from ingress.core.http.auth import Extension
from ingress.core.http.problems import ApiProblem, answer, of_bridge_error, of_http_exception
from ingress.dashboard import actions, live, pages
from ingress.dashboard.actions import go
from ingress.dashboard.sessions import cookies_of
from ingress.dashboard.state import DashboardState
from ingress.dashboard.view import FRAGMENT_HEADER, SignInNeeded, page, visitor_of
from ops.errors import BridgeError
from ops.tokens import Principal

_PATHS = frozenset({"/", "/jobs", "/sign-in", "/sign-out"})
_PREFIXES = ("/jobs/", "/ui/")
#: Paths that show the sign-in page to an unknown caller; all others answer 401 like the API.
_OPEN = {
    "GET": re.compile(r"/|/jobs|/jobs/[^/]+|/sign-in|/ui/static/[^/]+"),
    "POST": re.compile(rf"/sign-in|/sign-out|/ui/theme|/jobs/[^/]+/({'|'.join(actions.ACTIONS)})"),
}


def extension(app_state: AppState) -> Extension:
    """Return the dashboard as an extension of the API server."""
    dashboard = DashboardState(app_state)

    def identify(path: str, headers: dict[str, str]) -> Principal | None:
        if not is_ours(path) or "cookie" not in headers:
            return None
        found = dashboard.sessions.find(cookies_of(headers["cookie"]))
        return None if found is None else found[1]

    def on_sign_in_needed(request: Request[Any, Any, Any], _: SignInNeeded) -> Response[Any]:
        return _ask_to_sign_in(request)

    def on_problem(request: Request[Any, Any, Any], error: ApiProblem) -> Response[Any]:
        return _show(request, dashboard, error)

    def on_bridge_error(request: Request[Any, Any, Any], error: BridgeError) -> Response[Any]:
        return _show(request, dashboard, of_bridge_error(error))

    def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        return _show(request, dashboard, of_http_exception(error))

    router = Router(
        path="/",
        route_handlers=[*pages.ROUTES, *actions.ROUTES, *live.ROUTES],
        dependencies={"dashboard": Provide(lambda: dashboard, sync_to_thread=False)},
        exception_handlers={
            SignInNeeded: on_sign_in_needed,
            ApiProblem: on_problem,
            BridgeError: on_bridge_error,
            HTTPException: on_http_exception,
        },
        include_in_schema=False,
    )
    return Extension(routes=[router], is_open=is_open, identify=identify)


def is_ours(path: str) -> bool:
    """Return whether a path belongs to the dashboard."""
    return path in _PATHS or path.startswith(_PREFIXES)


def is_open(method: str, path: str) -> bool:
    """Return whether an unknown caller gets a page for this method and path."""
    shape = _OPEN.get(method)
    return shape is not None and shape.fullmatch(path) is not None


def _ask_to_sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
    if FRAGMENT_HEADER in request.headers or request.url.path.startswith("/ui/"):
        return Response("", status_code=401, media_type="text/plain")
    here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    if request.method != "GET" or here == "/":
        return go("/sign-in")
    return go(f"/sign-in?next={quote(here, safe='/')}")


def _show(request: Request[Any, Any, Any], dashboard: DashboardState, error: ApiProblem) -> Response[Any]:
    """Return an error as a page, or as a problem document for the script."""
    if FRAGMENT_HEADER in request.headers:
        return answer(error)
    try:
        visitor = visitor_of(request, dashboard)
    except SignInNeeded:
        return _ask_to_sign_in(request)
    return page(
        request, "error.html", {"problem": error.problem}, visitor=visitor, status=error.problem.status
    )
