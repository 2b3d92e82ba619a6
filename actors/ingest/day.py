"""The day that a job belongs to, read off its id: the same for each of its attempts."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from middleware.job.ids import ALPHABET

_STAMP_LETTERS = 10


@functools.lru_cache(maxsize=256)
def day_of(job_id: str) -> datetime:
    """Give the moment in which a job was made, UTC."""
    stamp_ms = 0
    for letter in job_id[:_STAMP_LETTERS]:
        stamp_ms = stamp_ms * len(ALPHABET) + ALPHABET.index(letter)
    return datetime.fromtimestamp(stamp_ms / 1000, UTC)
