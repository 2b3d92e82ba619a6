"""Text and numbers as the pages show them, without control sequences from jobs."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from ingress.core.text import safe, seconds_between, since, what
from middleware.job.records import JobRecord

_TITLE_MAX_CHARS = 160
_JSON_MAX_CHARS = 40_000
#: Escape sequences for terminals: colours, titles, cursor movements.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def title(record: JobRecord) -> str:
    """Return the beginning of a job's task, prompt, command or file; empty if it has none."""
    return what(record, max_chars=_TITLE_MAX_CHARS)


def output_text(text: str) -> str:
    """Return a chunk of output without escape sequences and control characters."""
    return safe(_ESCAPES.sub("", text))


def pretty(value: Any) -> str:
    """Return a value as indented JSON, truncated if it is long."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    cut = text if len(text) <= _JSON_MAX_CHARS else text[:_JSON_MAX_CHARS] + "\n…"
    return safe(cut)


def clock(at: str | None) -> str:
    """Return the time of day of an RFC 3339 time, with date and year if they are not the present ones."""
    if at is None:
        return ""
    day, _, rest = at.partition("T")
    today = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
    if day == today:
        return rest[:8]
    return f"{day[5:] if day[:4] == today[:4] else day} {rest[:5]}"


def took(start: str, end: str) -> str:
    """Return the time between two RFC 3339 times: ``8 ms``, ``1.2s``, ``3m05s``."""
    seconds = seconds_between(start, end)
    return f"{seconds * 1000:.0f} ms" if seconds is not None and 0 <= seconds < 1 else since(start, end)


def age(seconds: float | None) -> str:
    """Return an age as text: ``just now``, ``4 s ago``, ``3 min ago``."""
    if seconds is None:
        return ""
    if seconds < 2:  # noqa: PLR2004 (heartbeats come every second)
        return "just now"
    for limit_s, unit_s, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit_s:
            return f"{int(seconds / unit_s)} {unit} ago"
    return f"{int(seconds / 86_400)} d ago"
