"""What the forms do: sign in and out, choose a theme, act on jobs. Each carries the token of its session."""

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
    return {"finished": "It had ended before.", "cancelling": "It is being stopped."}.get(
        reply.outcome, "Cancelled."
    )


def _retry(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.retry(dashboard.app_state.bridge, job_id, f"retried by {actor}")
    return "It runs again."


def _approve(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.approve(dashboard.app_state.bridge, job_id, actor)
    return "Approved."


def _deny(dashboard: DashboardState, job_id: str, actor: str) -> str:
    control.deny(dashboard.app_state.bridge, job_id, actor)
    return "Denied."


#: What can be done to a job; each needs the scope admin.
ACTS: dict[str, Callable[[DashboardState, str, str], str]] = {
    "cancel": _cancel,
    "retry": _retry,
    "approve": _approve,
    "deny": _deny,
}


class ActionReply(msgspec.Struct, frozen=True):
    """What came of an act, for the script."""

    said: str


@get("/sign-in")
async def show_sign_in(request: AnyRequest, dashboard: DashboardDependency) -> Response[Any]:
    """Show the way in."""
    wanted = safe_next(request.query_params.get("next"))
    if dashboard.sessions.find(request.cookies) is not None:
        return go(wanted)
    return _sign_in_page(request, wanted)


def _sign_in_page(request: AnyRequest, wanted: str, fault: str = "", status: int = 200) -> Response[Any]:
    # Nobody has a session yet; what the form is to send along stands in a cookie that only our pages can set.
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
    """Begin a session."""
    form = await _form(request)
    wanted = safe_next(form.get("next"))
    if not is_same(form.get("csrf"), request.cookies.get(FORM_COOKIE)):
        return _sign_in_page(request, wanted, "The form had expired. Please try again.", 403)
    who = "" if request.client is None else request.client.host
    wait_s = dashboard.tries.wait_s(who)
    if wait_s:
        return _sign_in_page(request, wanted, f"Too many tries. Wait {wait_s} s.", 429)
    token = form.get("token", "").strip()
    key = dashboard.sessions.begin(token) if 0 < len(token) <= BEARER_MAX else None
    if key is None:
        dashboard.tries.note(who)
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
    """Keep the theme in a cookie; the script does it without us."""
    form = await _checked_form(request, visitor_of(request, dashboard))
    theme = form.get("theme", "")
    answer = go(safe_next(form.get("next")))
    answer.cookies.append(
        Cookie(key=THEME_COOKIE, value=theme if theme in THEMES else "", max_age=_THEME_S, samesite="strict")
    )
    return answer


@post("/jobs/{job_id:str}/{act:str}", status_code=200)
async def act_on_job(
    request: AnyRequest, dashboard: DashboardDependency, job_id: FromPath[str], act: FromPath[str]
) -> Response[Any]:
    """Do something to a job."""
    visitor = visitor_of(request, dashboard)
    await _checked_form(request, visitor)
    if visitor.scope != "admin":
        raise ApiProblem(
            403,
            "scope",
            f"the token {visitor.name!r} has the scope {visitor.scope}; this needs admin.",
            remedy="Sign in with one made with: 3ox token make NAME --scope admin.",
        )
    do = ACTS.get(act)
    if do is None:
        raise NotFoundException
    said = await sync_to_thread(do, dashboard, job_id, f"dashboard:{visitor.name}")
    if FRAGMENT_HEADER in request.headers:
        return Response(
            msgspec.json.encode(ActionReply(said)), media_type="application/json", headers=HEADERS
        )
    return go(f"/jobs/{job_id}")


async def _checked_form(request: AnyRequest, visitor: Visitor) -> dict[str, str]:
    """Read a form of this session.

    Raises:
        ApiProblem: It is not of this session.
    """
    form = await _form(request)
    if not is_same(form.get("csrf"), visitor.csrf):
        raise ApiProblem(
            403,
            "csrf",
            "this form does not belong to your session.",
            remedy="Load the page again and repeat it.",
        )
    return form


async def _form(request: AnyRequest) -> dict[str, str]:
    """Read a form.

    Raises:
        ApiProblem: It is none.
    """
    if request.content_type[0].lower() != _FORM:
        raise ApiProblem(415, "media-type", "this takes a form.", remedy="Use the dashboard's own pages.")
    form = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


def safe_next(path: str | None) -> str:
    """Give where to go on to, if it is a page of ours."""
    if path is None or not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    return path


def go(path: str) -> Response[Any]:
    """Answer with another page."""
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
    """Tell whether the browser speaks TLS, with us or with a proxy before us."""
    return request.scope.get("scheme") == "https" or request.headers.get("origin", "").startswith("https://")


ROUTES: list[Any] = [show_sign_in, sign_in, sign_out, choose_theme, act_on_job]
