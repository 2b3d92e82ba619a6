"""The day that a job belongs to, read off its id: the same for each of its attempts."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from middleware.job.ids import made_ms


@functools.lru_cache(maxsize=256)
def day_of(job_id: str) -> datetime:
    """Give the moment in which a job was made, UTC."""
    return datetime.fromtimestamp(made_ms(job_id) / 1000, UTC)
