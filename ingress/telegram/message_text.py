"""Text as Telegram counts and takes it: bounded messages, in UTF-16 units."""

from __future__ import annotations

#: Of one message, see https://core.telegram.org/bots/api#sendmessage.
MESSAGE_MAX_UNITS = 4096
#: A longer text is cut: nobody reads more in a chat, and each message costs two calls.
PARTS_MAX = 20
#: A part ends at a line or word end if there is one in its last quarter.
_SEARCH_SHARE = 4
_ASTRAL = 0x10000


def units(text: str) -> int:
    """Count a text's UTF-16 units: letters outside the basic plane, as most emoji are, count two."""
    return len(text) + sum(ord(letter) >= _ASTRAL for letter in text)


def head(text: str, limit: int) -> str:
    """Give the longest beginning of at most ``limit`` units."""
    if units(text) <= limit:
        return text
    left = limit
    for at, letter in enumerate(text):
        left -= 2 if ord(letter) >= _ASTRAL else 1
        if left < 0:
            return text[:at]
    return text


def tail(text: str, limit: int) -> str:
    """Give the longest end of at most ``limit`` units."""
    return head(text[::-1], limit)[::-1]


def split(text: str, limit: int = MESSAGE_MAX_UNITS) -> list[str]:
    """Divide a text into messages, at line ends and between words where that costs no more than a quarter.

    Telegram trims every message, so space around the cuts is dropped here already.

    Args:
        text: Any length; at least one message comes out, of a blank text one that says so.
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
    """Give where to end a part that is followed by more."""
    if following.isspace():
        return len(part)
    least = len(part) - len(part) // _SEARCH_SHARE
    for mark in ("\n", " "):
        at = part.rfind(mark, least)
        if at > 0:
            return at
    return len(part)
