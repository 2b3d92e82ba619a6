"""Words and numbers as the pages show them; everything that comes from a job is made harmless first."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from ingress.core.text import safe, what
from middleware.job.records import JobRecord

_TITLE_MAX_CHARS = 160
_JSON_MAX_CHARS = 40_000
#: Colours, titles and cursor movements that a terminal would obey; a page has no use for them.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def title(record: JobRecord) -> str:
    """Give the beginning of what a job was asked to do; empty if its type says it all."""
    return what(record, max_chars=_TITLE_MAX_CHARS)


def output_text(text: str) -> str:
    """Give a piece of output without what was meant for a terminal."""
    return safe(_ESCAPES.sub("", text))


def pretty(value: Any) -> str:
    """Write a value as indented JSON, the beginning of a long one."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    cut = text if len(text) <= _JSON_MAX_CHARS else text[:_JSON_MAX_CHARS] + "\n…"
    return safe(cut)


def clock(at: str | None) -> str:
    """Give the time of day of an RFC 3339 time, with the day if it was another one."""
    if at is None:
        return ""
    day, _, rest = at.partition("T")
    today = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
    return rest[:8] if day == today else f"{day[5:]} {rest[:5]}"


def age(seconds: float | None) -> str:
    """Write how long ago something was: ``just now``, ``4 s ago``, ``3 min ago``."""
    if seconds is None:
        return ""
    if seconds < 2:  # noqa: PLR2004 (what beats every second beats now)
        return "just now"
    for limit_s, unit_s, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit_s:
            return f"{int(seconds / unit_s)} {unit} ago"
    return f"{int(seconds / 86_400)} d ago"
