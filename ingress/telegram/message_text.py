"""Limit and split texts as Telegram measures them, in UTF-16 units."""

from __future__ import annotations

#: Limit for one message, see https://core.telegram.org/bots/api#sendmessage.
MESSAGE_MAX_UNITS = 4096
#: Limit for the messages of one text, each of which costs two calls; the rest is cut.
PARTS_MAX = 20
#: A part ends at the end of a line or word if there is one in its last quarter.
_SEARCH_SHARE = 4
_ASTRAL = 0x10000


def units(text: str) -> int:
    """Return the number of UTF-16 units; characters such as most emoji count two."""
    return len(text) + sum(ord(letter) >= _ASTRAL for letter in text)


def head(text: str, limit: int) -> str:
    """Return the longest beginning of at most ``limit`` units."""
    if units(text) <= limit:
        return text
    left = limit
    for at, letter in enumerate(text):
        left -= 2 if ord(letter) >= _ASTRAL else 1
        if left < 0:
            return text[:at]
    return text


def tail(text: str, limit: int) -> str:
    """Return the longest end of at most ``limit`` units."""
    return head(text[::-1], limit)[::-1]


def split(text: str, limit: int = MESSAGE_MAX_UNITS) -> list[str]:
    """Split a text into messages, at the end of a line or word where one is in the last quarter.

    Space around the cuts is dropped, as Telegram does with each message.

    Args:
        text: Any length; a blank text becomes one message that says so.
        limit: Units of one message.
    """
    parts: list[str] = []
    rest = text.strip()
    while rest and len(parts) < PARTS_MAX:
        part = head(rest, limit)
        if len(part) < len(rest):
            part = part[: _cut(part, rest[len(part)])]
        rest = rest[len(part) :].lstrip()
        parts.append(part.rstrip())
    if rest:
        note = "\n[cut here]"
        parts[-1] = head(parts[-1], limit - units(note)) + note
    return parts if parts else ["(empty)"]


def _cut(part: str, following: str) -> int:
    """Return where to end a part that is followed by more text."""
    if following.isspace():
        return len(part)
    least = len(part) - len(part) // _SEARCH_SHARE
    for mark in ("\n", " "):
        at = part.rfind(mark, least)
        if at > 0:
            return at
    return len(part)
