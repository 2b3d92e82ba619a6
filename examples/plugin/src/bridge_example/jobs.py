"""An actor: counts the words of a text."""

from __future__ import annotations

import dramatiq

from actors import broker
from actors.context import current_job


@dramatiq.actor(broker=broker, queue_name="words", max_retries=3, time_limit=60_000)
def count_words(text: str, *, unique: bool = False) -> dict[str, int]:
    """Return the number of words in a text."""
    words = text.split()
    current_job().progress(50, "counting")
    return {"words": len(set(words) if unique else words)}
