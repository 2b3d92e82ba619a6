"""Job ids: sortable by time of creation, safe in URLs and file names, short enough to read aloud.

An id has twenty characters of Crockford's base 32 in lower case (no i, l, o, u): ten for the milliseconds
since 1970 (48 bits) and ten random ones (50 bits).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from functools import lru_cache

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 20
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

#: Byte -> one letter; each letter for eight of the 256 bytes.
_LETTERS = bytes(ord(ALPHABET[byte % 32]) for byte in range(256))
#: The digits of base 32 as ``int`` has them.
_AS_PYTHON = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
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
    return _stamp(stamp_ms) + os.urandom(ID_LENGTH // 2).translate(_LETTERS).decode()


@lru_cache(maxsize=1)
def _stamp(stamp_ms: int) -> str:
    """Return the first half of the ids of one millisecond; a batch makes many of them."""
    return _base32(stamp_ms)


def job_id_of_message(message_id: str, timestamp_ms: int) -> str:
    """Return the job id of a Dramatiq message: the same message is the same job.

    Dramatiq's ids are UUIDs, which do not sort by time.

    Args:
        message_id: Id of the message; one in the form of a job id is returned as it is.
        timestamp_ms: When the message was made, in milliseconds since 1970.
    """
    if len(message_id) == ID_LENGTH and is_id_part(message_id):
        return message_id
    return _base32(timestamp_ms) + id_tail_of_message(message_id)


def id_tail_of_message(message_id: str) -> str:
    """Return the last ten characters of a message's job id, which do not depend on its time."""
    return _base32(int.from_bytes(hashlib.sha256(message_id.encode()).digest()[:7], "big"))


def made_ms(job_id: str) -> int:
    """Return when an id of ``new_job_id`` was made, in milliseconds since 1970."""
    return int(job_id[: ID_LENGTH // 2].translate(_AS_PYTHON), 32)


def id_named(text: str) -> str:
    """Return the job id, or the part of one, that a user typed; it is not checked yet.

    Args:
        text: An id in any case, with or without the ``agent:PROJECT:`` that ``3ox run`` prints before it; the
            id of a receipt (``r-ID``); or the id of a Dramatiq message, a UUID.
    """
    word = text.rpartition(":")[2].strip().lower().removeprefix("r-")
    return id_tail_of_message(word) if re.fullmatch(_UUID, word) else word


def is_id_part(text: str) -> bool:
    """Return whether the text can be a whole job id, or a prefix or suffix of one."""
    return 0 < len(text) <= ID_LENGTH and all(letter in ALPHABET for letter in text)
