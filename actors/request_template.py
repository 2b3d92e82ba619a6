"""Templates of endpoints: texts, lists and tables with placeholders for parts of a request.

``{body.a.b}``, ``{query.a}`` and ``{headers.a}`` are replaced by parts of the request; a number selects an
item of a list. ``{body.a.b|text}`` is replaced by ``text`` where the part is missing or null. A text that
consists of one placeholder becomes the part itself, with its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.job_types.rest_request import RestRequestPayload
from ops.errors import JobRefused

#: A placeholder: the source, the path in it, and the default.
_PLACEHOLDER = re.compile(r"\{(body|query|headers)((?:\.[^.{}|]+)*)(?:\|([^{}]*))?\}")
#: Maximum length of a value inserted into a text.
_TEXT_MAX = 65_536
_INDEX_DIGITS_MAX = 9


class _Missing:
    """A part that a request lacks.

    Attributes:
        null: Whether the request says so, by a null on the way to it.
    """

    def __init__(self, *, null: bool) -> None:
        self.null = null


def fill(template: Any, request: RestRequestPayload) -> Any:
    """Return a template with its placeholders replaced, at every depth.

    Args:
        template: Texts, lists and tables with placeholders.
        request: The request.

    Raises:
        JobRefused: The request lacks a part that has no default.
    """
    if isinstance(template, dict):
        return {key: fill(item, request) for key, item in template.items()}
    if isinstance(template, list):
        return [fill(item, request) for item in template]
    if not isinstance(template, str):
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    if whole is not None:
        return _part(request, whole)
    return _PLACEHOLDER.sub(lambda found: _as_text(_part(request, found)), template)


def null_parts(template: Any, request: RestRequestPayload) -> Iterator[str]:
    """Yield the placeholders without a default for which the request says null, such as ``body.commit.id``.

    Args:
        template: Texts, lists and tables with placeholders.
        request: The request.
    """
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, list):
        for item in template:
            yield from null_parts(item, request)
    elif isinstance(template, str):
        for found in _PLACEHOLDER.finditer(template):
            value = _find(request, found)
            null = value.null if isinstance(value, _Missing) else value is None
            if null and found[3] is None:
                yield _name(found)


def _find(request: RestRequestPayload, found: re.Match[str]) -> Any:
    """Return a part of the request, or ``_Missing``."""
    value: Any = getattr(request, found[1])
    for step in found[2].split(".")[1:]:
        name = step.lower() if found[1] == "headers" else step
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _is_index(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _Missing(null=value is None)
    return value


def _is_index(name: str) -> bool:
    return name.isdecimal() and len(name) <= _INDEX_DIGITS_MAX


def _part(request: RestRequestPayload, found: re.Match[str]) -> Any:
    value = _find(request, found)
    if found[3] is not None and (value is None or isinstance(value, _Missing)):
        return found[3]
    if isinstance(value, _Missing):
        raise JobRefused(
            f"The request to {request.endpoint!r} has no {_name(found)}.",
            remedy=f"Send it, or write a default into the endpoint: {{{_name(found)}|text}}.",
        )
    return value


def _name(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}"


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > _TEXT_MAX:
        raise JobRefused(
            f"A part of the request has {len(text)} characters; at most {_TEXT_MAX} are inserted.",
            remedy="Send less, or make the placeholder the whole value.",
        )
    return text
