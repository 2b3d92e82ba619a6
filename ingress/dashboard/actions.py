"""Forms: sign in and out, choose a theme, act on jobs. Each form holds the CSRF token of its session."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import Cookie
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from ingress.core import control
from ingress.core.http.auth import BEARER_MAX
from ingress.core.http.problems import ApiProblem
from ingress.dashboard.sessions import COOKIE, FORM_COOKIE, LIFE_S, is_same
from ingress.dashboard.state import DashboardDependency, DashboardState
from ingress.dashboard.view import FRAGMENT_HEADER, HEADERS, THEME_COOKIE, THEMES, Visitor, page, visitor_of

_THEME_S = 365 * 86_400
_SEE_OTHER = 303
_FORM = "application/x-www-form-urlencoded"

AnyRequest = Request[Any, Any, Any]


def _cancel(dashboard: DashboardState, job_id: str, actor: str) -> str:
    reply = control.cancel(dashboard.app_state.bridge, job_id, f"cancelled by {actor}")
    return {"finished": "The job had already finished.", "cancelling": "Stopping the job."}.get(
        reply.outcome, "Cancelled."
    )


def _retry(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.retry(dashboard.app_state.bridge, job_id, f"retried by {actor}")
    return "Retried."


def _approve(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.approve(dashboard.app_state.bridge, job_id, actor)
    return "Approved."


def _deny(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.deny(dashboard.app_state.bridge, job_id, actor)
    return "Denied."


#: Actions on a job; each needs the scope admin.
ACTIONS: dict[str, Callable[[DashboardState, str, str], str]] = {
    "cancel": _cancel,
    "retry": _retry,
    "approve": _approve,
    "deny": _deny,
}


class ActionReply(msgspec.Struct, frozen=True):
    """The outcome of an action, for the script."""

    message: str


@get("/sign-in")
async def show_sign_in(request: AnyRequest, dashboard: DashboardDependency) -> Response[Any]:
    """Show the sign-in page."""
    wanted = safe_next(request.query_params.get("next"))
    if dashboard.sessions.find(request.cookies) is not None:
        return go(wanted)
    return _sign_in_page(request, wanted)


def _sign_in_page(request: AnyRequest, wanted: str, fault: str = "", status: int = 200) -> Response[Any]:
    # Before the session exists, the CSRF token is kept in a cookie that only our pages can set.
    known = request.cookies.get(FORM_COOKIE)
    form_token = secrets.token_urlsafe(32) if known is None else known
    answer = page(
        request,
        "sign_in.html",
        {"form_token": form_token, "next": wanted, "fault": fault},
        status=status,
    )
    answer.cookies.append(_cookie(request, FORM_COOKIE, form_token))
    return answer


@post("/sign-in", status_code=200)
async def sign_in(request: AnyRequest, dashboard: DashboardDependency) -> Response[Any]:
    """Start a session."""
    form = await _form(request)
    wanted = safe_next(form.get("next"))
    if not is_same(form.get("csrf"), request.cookies.get(FORM_COOKIE)):
        return _sign_in_page(request, wanted, "The form has expired. Please try again.", 403)
    address = "" if request.client is None else request.client.host
    wait_s = dashboard.sign_in_limit.wait_s(address)
    if wait_s:
        return _sign_in_page(request, wanted, f"Too many attempts. Wait {wait_s} s.", 429)
    token = form.get("token", "").strip()
    key = dashboard.sessions.begin(token) if 0 < len(token) <= BEARER_MAX else None
    if key is None:
        dashboard.sign_in_limit.record_failure(address)
        return _sign_in_page(request, wanted, "This token is not valid.", 401)
    answer = go(wanted)
    answer.cookies.append(_cookie(request, COOKIE, key, max_age=int(LIFE_S)))
    return answer


@post("/sign-out", status_code=200)
async def sign_out(request: AnyRequest, dashboard: DashboardDependency) -> Response[Any]:
    """End a session."""
    await _checked_form(request, visitor_of(request, dashboard))
    dashboard.sessions.end(request.cookies)
    answer = go("/sign-in")
    answer.cookies.append(_cookie(request, COOKIE, "", max_age=0))
    return answer


@post("/ui/theme", status_code=200)
async def choose_theme(request: AnyRequest, dashboard: DashboardDependency) -> Response[Any]:
    """Store the theme in a cookie; used by browsers without script."""
    form = await _checked_form(request, visitor_of(request, dashboard))
    theme = form.get("theme", "")
    answer = go(safe_next(form.get("next")))
    answer.cookies.append(
        Cookie(key=THEME_COOKIE, value=theme if theme in THEMES else "", max_age=_THEME_S, samesite="strict")
    )
    return answer


@post("/jobs/{job_id:str}/{action:str}", status_code=200)
async def act_on_job(
    request: AnyRequest, dashboard: DashboardDependency, job_id: FromPath[str], action: FromPath[str]
) -> Response[Any]:
    """Perform an action on a job."""
    visitor = visitor_of(request, dashboard)
    await _checked_form(request, visitor)
    if visitor.scope != "admin":
        raise ApiProblem(
            403,
            "scope",
            f"The token {visitor.name!r} has the scope {visitor.scope}; admin is needed.",
            remedy="Sign in with a token made with: 3ox token make NAME --scope admin.",
        )
    perform = ACTIONS.get(action)
    if perform is None:
        raise NotFoundException
    message = await sync_to_thread(perform, dashboard, job_id, f"dashboard:{visitor.name}")
    if FRAGMENT_HEADER in request.headers:
        return Response(
            msgspec.json.encode(ActionReply(message)), media_type="application/json", headers=HEADERS
        )
    return go(f"/jobs/{job_id}")


async def _checked_form(request: AnyRequest, visitor: Visitor) -> dict[str, str]:
    """Return the fields of a form of this session.

    Raises:
        ApiProblem: The form belongs to another session.
    """
    form = await _form(request)
    if not is_same(form.get("csrf"), visitor.csrf):
        raise ApiProblem(
            403,
            "csrf",
            "This form does not belong to your session.",
            remedy="Reload the page and try again.",
        )
    return form


async def _form(request: AnyRequest) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        ApiProblem: The body is not a form.
    """
    if request.content_type[0].lower() != _FORM:
        raise ApiProblem(
            415, "media-type", "The body is not a form.", remedy="Use the pages of the dashboard."
        )
    form = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


def safe_next(path: str | None) -> str:
    """Return the path if it is a page of the dashboard, else ``/``."""
    if path is None or not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    return path


def go(path: str) -> Response[Any]:
    """Return a redirect to a page."""
    return Response(
        "", status_code=_SEE_OTHER, media_type="text/plain", headers={**HEADERS, "Location": path}
    )


def _cookie(request: AnyRequest, name: str, value: str, max_age: int | None = None) -> Cookie:
    return Cookie(
        key=name,
        value=value,
        max_age=max_age,
        httponly=True,
        samesite="strict",
        secure=_is_secure(request),
    )


def _is_secure(request: AnyRequest) -> bool:
    """Return whether the browser uses TLS, directly or through a proxy."""
    return request.scope.get("scheme") == "https" or request.headers.get("origin", "").startswith("https://")


ROUTES: list[Any] = [show_sign_in, sign_in, sign_out, choose_theme, act_on_job]
