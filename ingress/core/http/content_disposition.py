"""File names in ``Content-Disposition`` (RFC 6266, RFC 7578, RFC 8187 and what browsers do)."""

from __future__ import annotations

import re
import urllib.parse

#: ``; NAME=VALUE``: a token or a quoted string.
_PARAMETER = re.compile(r""";\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*("(?:\\.|[^\\"])*"|[^;"]*)""")
_EXTENDED = re.compile(r"([\w-]+)'[\w-]*'(.*)", re.DOTALL)
#: Characters that browsers escape in names; nothing else is escaped with a percent sign there.
_BROWSER_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


def filename_of(header: str) -> str | None:
    """Return the file name of a ``Content-Disposition`` header; None if it has none.

    ``filename*`` takes precedence over ``filename``.

    Args:
        header: Value of the header, decoded as Latin-1.
    """
    values = {name.lower(): value.strip() for name, value in _PARAMETER.findall(header)}
    extended = _extended(values.get("filename*", ""))
    if extended is not None:
        return extended
    given = values.get("filename")
    return None if given is None else _unquoted(_decoded(given))


def _extended(value: str) -> str | None:
    """Return the text of an extended value, ``CHARSET'LANGUAGE'PERCENT-ENCODED``; None if it is not valid."""
    found = _EXTENDED.fullmatch(value.strip('"'))
    if found is None:
        return None
    try:
        return urllib.parse.unquote_to_bytes(found[2].encode("latin-1")).decode(found[1])
    except (LookupError, UnicodeError):
        return None


def _decoded(text: str) -> str:
    data = text.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        # Old programs send a path of Windows without escaping its backslashes.
        value = re.sub(r'\\([\\"])', r"\1", value[1:-1])
    for escape, letter in _BROWSER_ESCAPES.items():
        value = value.replace(escape, letter)
    return value
