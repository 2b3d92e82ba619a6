"""The retry time in the headers of a rate-limited response, in the formats of several vendors.

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

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|us|s|m|h|d)")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: A number above this is a time in seconds since 1970, not a duration.
_TIMESTAMP_MIN_S = 1e9
#: (reset header, header with the remaining amount)
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
    """Return the time until a retry that the headers of a response name.

    Args:
        headers: Headers with lower-case names.
        now_s: Local time, in seconds since 1970; used only without a ``Date`` header of the server, so that
            wrong clocks do no harm.

    Returns:
        Seconds from now, 0 or more; None if the headers name no time.
    """
    local_s = time.time() if now_s is None else now_s
    server_s = _date_s(headers.get("date", ""))
    now = local_s if server_s is None else server_s
    wait_ms = _number(headers.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    retry_after_s = _wait_s(headers.get("retry-after", ""), now)
    if retry_after_s is not None:
        return retry_after_s
    waits: list[tuple[bool, float]] = []
    for reset, remaining in _LIMITS:
        wait_s = _wait_s(headers.get(reset, ""), now)
        if wait_s is not None:
            waits.append((_number(headers.get(remaining, "")) == 0, wait_s))
    # The exhausted limits count; if the server does not report which, all of them.
    exhausted = [wait_s for empty, wait_s in waits if empty]
    return max(exhausted if exhausted else [wait_s for _, wait_s in waits], default=None)


def _wait_s(text: str, now_s: float) -> float | None:
    text = text.strip()
    number = _number(text)
    if number is not None:
        return max(0.0, number - now_s) if number > _TIMESTAMP_MIN_S else number
    parts = list(_DURATION.finditer(text))
    if parts and "".join(part.group() for part in parts) == text:
        return sum(float(part["number"]) * _UNIT_S[part["unit"]] for part in parts)
    date_s = _date_s(text)
    return None if date_s is None else max(0.0, date_s - now_s)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date_s(text: str) -> float | None:
    """Return an HTTP or RFC 3339 date in seconds since 1970; None for any other text."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    return None
