"""Turns what was read into a page: templates that escape everything, and the headers that go with them."""

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
from ingress.core.text import one_line, short_id, since
from ingress.dashboard.charts import span
from ingress.dashboard.labels import age, clock, output_text, pretty, title
from ingress.dashboard.state import DashboardState
from ops.tokens import Scope

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"
THEME_COOKIE = "3ox_theme"
THEMES = ("", "light", "dark")
#: Asked for by the script instead of a page.
FRAGMENT_HEADER = "x-fragment"
#: Nothing but our own files and no inline code; a page of elsewhere may not frame ours. The referrer policy
#: is looser than the API's: with none at all, browsers send forms without saying where from.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Visitor(Struct, frozen=True, kw_only=True):
    """Who looks on.

    Attributes:
        name: Of the token.
        scope: What it allows.
        csrf: For the forms; empty for a program that comes with a bearer token, which gets none.
    """

    name: str
    scope: Scope
    csrf: str

    @property
    def acts(self) -> bool:
        """Whether the page has buttons."""
        return self.scope == "admin" and self.csrf != ""


class SignInNeeded(Exception):
    """Nobody that is known asks for a page."""


def visitor_of(request: Request[Any, Any, Any], dashboard: DashboardState) -> Visitor:
    """Give who asks.

    Raises:
        SignInNeeded: Nobody that is known.
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
        request: That it answers.
        template: File name.
        context: What the template shows.
        visitor: Who looks on; None on the way in.
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
    # Not at the top: it would delay each start of the door, killed ones among them, by a tenth of it.
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
        pretty=pretty,
        short_id=short_id,
        since=since,
        span=span,
        title=title,
    )
    made.globals["static"] = static_url
    return made


def static_url(name: str) -> str:
    """Give the address of one of our files; it changes with the content, so that browsers may keep it."""
    return f"/ui/static/{name}?v={static_file(name)[1]}"


@cache
def static_file(name: str) -> tuple[bytes, str]:
    """Read one of our files; gives it and its version.

    Raises:
        KeyError: There is none of this name.
    """
    if name not in MEDIA_TYPES:
        raise KeyError(name)
    data = (STATIC / name).read_bytes()
    return data, hashlib.sha256(data).hexdigest()[:12]


#: What may be asked for, and as what it is sent; the framework adds the charset of a text.
MEDIA_TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
