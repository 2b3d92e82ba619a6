"""When a model server that has had enough says to come back; the dialects of several vendors.

- ``retry-after``: seconds or a date (RFC 9110, 10.2.3); ``retry-after-ms`` with OpenAI and Azure.
- OpenAI: ``x-ratelimit-reset-requests`` and ``-tokens``, durations such as ``6m0s`` or ``20ms``, each beside
  ``x-ratelimit-remaining-...``. Others send one ``x-ratelimit-reset``, seconds or seconds since 1970.
- Anthropic: ``anthropic-ratelimit-requests-reset`` and those of ``tokens``, ``input-tokens`` and
  ``output-tokens``, RFC 3339 dates, each beside ``anthropic-ratelimit-...-remaining``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DURATION = re.compile(r"(?P<figure>\d+(?:\.\d+)?)(?P<unit>ms|us|s|m|h|d)")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: A bare figure above this is a moment, in seconds since 1970, not a duration.
_MOMENT_MIN_S = 1e9
#: (reset header, header that says how much is left)
_LIMITS = (
    ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"),
    ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-remaining"),
    ("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining"),
    ("anthropic-ratelimit-input-tokens-reset", "anthropic-ratelimit-input-tokens-remaining"),
    ("anthropic-ratelimit-output-tokens-reset", "anthropic-ratelimit-output-tokens-remaining"),
)


def reset_after_s(headers: Mapping[str, str], *, now_s: float | None = None) -> float | None:
    """Read off an answer's headers when to come back.

    Args:
        headers: Names in lower case.
        now_s: Our own time, in seconds since 1970; the server's ``Date`` goes before it, so that a clock
            that is wrong by minutes, here or there, does no harm.

    Returns:
        Seconds from now, 0 or more; None if the headers do not say.
    """
    ours_s = time.time() if now_s is None else now_s
    server_s = _date_s(headers.get("date", ""))
    now = ours_s if server_s is None else server_s
    wait_ms = _figure(headers.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    said = _wait_s(headers.get("retry-after", ""), now)
    if said is not None:
        return said
    waits: list[tuple[bool, float]] = []
    for reset, remaining in _LIMITS:
        wait_s = _wait_s(headers.get(reset, ""), now)
        if wait_s is not None:
            waits.append((_figure(headers.get(remaining, "")) == 0, wait_s))
    # The limits that are used up count; where the server does not say which are, all of them.
    used_up = [wait_s for empty, wait_s in waits if empty]
    return max(used_up if used_up else [wait_s for _, wait_s in waits], default=None)


def _wait_s(text: str, now_s: float) -> float | None:
    text = text.strip()
    figure = _figure(text)
    if figure is not None:
        return max(0.0, figure - now_s) if figure > _MOMENT_MIN_S else figure
    parts = list(_DURATION.finditer(text))
    if parts and "".join(part.group() for part in parts) == text:
        return sum(float(part["figure"]) * _UNIT_S[part["unit"]] for part in parts)
    moment = _date_s(text)
    return None if moment is None else max(0.0, moment - now_s)


def _figure(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date_s(text: str) -> float | None:
    """Read an HTTP date or an RFC 3339 one; None if it is neither."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    return None
