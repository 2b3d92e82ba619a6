"""Render pages and fragments: templates with automatic escaping, response headers, static files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Request, Response
from msgspec import Struct

from ingress.core.http.auth import principal_of
from ingress.core.http.problems import ApiProblem
from ingress.core.text import one_line, percent, short_id, since
from ingress.dashboard.charts import span
from ingress.dashboard.labels import age, clock, output_text, pretty, title, took
from ingress.dashboard.state import DashboardState
from ops.tokens import Scope

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"
THEME_COOKIE = "3ox_theme"
THEMES = ("", "light", "dark")
#: Header of the script's requests for fragments.
FRAGMENT_HEADER = "x-fragment"
#: Own files only, no inline code, no framing by other pages. The referrer policy is looser than the API's:
#: with "no-referrer", browsers send forms without an origin.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Visitor(Struct, frozen=True, kw_only=True):
    """The user of a page.

    Attributes:
        name: Name of the token.
        scope: Scope of the token.
        csrf: CSRF token for the forms; empty for a program with a bearer token, which gets no forms.
    """

    name: str
    scope: Scope
    csrf: str

    @property
    def can_act(self) -> bool:
        """Whether the page has buttons for actions."""
        return self.scope == "admin" and self.csrf != ""


class SignInNeeded(Exception):
    """An unknown caller requests a page."""


def visitor_of(request: Request[Any, Any, Any], dashboard: DashboardState) -> Visitor:
    """Return the user of a request.

    Raises:
        SignInNeeded: The caller is unknown.
    """
    try:
        principal = principal_of(request)
    except ApiProblem as error:
        raise SignInNeeded from error
    found = None if "authorization" in request.headers else dashboard.sessions.find(request.cookies)
    return Visitor(name=principal.name, scope=principal.scope, csrf="" if found is None else found[0].csrf)


def page(
    request: Request[Any, Any, Any],
    template: str,
    context: Mapping[str, Any],
    *,
    visitor: Visitor | None = None,
    status: int = 200,
) -> Response[str]:
    """Render a page or a fragment.

    Args:
        request: The request.
        template: File name of the template.
        context: Variables of the template.
        visitor: The user; None on the sign-in page.
        status: HTTP status.
    """
    theme = request.cookies.get(THEME_COOKIE, "")
    theme = theme if theme in THEMES else ""
    query = request.url.query
    text = (
        _environment()
        .get_template(template)
        .render(
            {
                "visitor": visitor,
                "theme": theme,
                "next_theme": THEMES[(THEMES.index(theme) + 1) % len(THEMES)] or "auto",
                "here": f"{request.url.path}?{query}" if query else request.url.path,
                "place": "",
                **context,
            }
        )
    )
    return Response(text, status_code=status, media_type="text/html", headers=HEADERS)


@cache
def _environment() -> Environment:
    # Not at the top: importing jinja2 takes a tenth of the start-up time of the API process.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        age=age,
        clock=clock,
        one_line=one_line,
        output_text=output_text,
        percent=percent,
        pretty=pretty,
        short_id=short_id,
        since=since,
        span=span,
        title=title,
        took=took,
    )
    made.globals["static"] = static_url
    return made


def static_url(name: str) -> str:
    """Return the address of a static file; it changes with the content, so browsers can cache it."""
    return f"/ui/static/{name}?v={static_file(name)[1]}"


@cache
def static_file(name: str) -> tuple[bytes, str]:
    """Return the content of a static file and its version.

    Raises:
        KeyError: The file does not exist.
    """
    if name not in MEDIA_TYPES:
        raise KeyError(name)
    data = (STATIC / name).read_bytes()
    return data, hashlib.sha256(data).hexdigest()[:12]


#: Static files and their media types; the framework appends the charset.
MEDIA_TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
