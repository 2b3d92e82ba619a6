"""Job ids: sortable by time of creation, safe in URLs and file names, short enough to read aloud.

An id has twenty characters of Crockford's base 32 in lower case (no i, l, o, u): ten for the milliseconds
since 1970 (48 bits) and ten random ones (50 bits).
"""

from __future__ import annotations

import os
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 20

_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]


def _base32(number: int) -> str:
    """Return 50 bits as ten letters; two letters per look-up."""
    return (
        _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


def new_job_id(now_ms: int | None = None) -> str:
    """Return a new job id.

    Args:
        now_ms: Milliseconds since 1970; now by default.
    """
    stamp_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return _base32(stamp_ms) + _base32(int.from_bytes(os.urandom(7), "big"))


def made_ms(job_id: str) -> int:
    """Return when an id of ``new_job_id`` was made, in milliseconds since 1970."""
    number = 0
    for letter in job_id[: ID_LENGTH // 2]:
        number = number << 5 | ALPHABET.index(letter)
    return number


def id_named(text: str) -> str:
    """Return the job id, or the part of one, that a user typed; it is not checked.

    Args:
        text: An id in any case, also with the ``agent:PROJECT:`` that ``3ox run`` prints before it, or the id
            of a receipt (``r-ID``).
    """
    return text.rpartition(":")[2].strip().lower().removeprefix("r-")


def is_id_part(text: str) -> bool:
    """Return whether the text can be a whole job id, or a prefix or suffix of one."""
    return 0 < len(text) <= ID_LENGTH and all(letter in ALPHABET for letter in text)
