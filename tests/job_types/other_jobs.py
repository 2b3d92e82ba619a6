"""A second pool: another actor on the queue of the first, and one on a queue of its own."""

from __future__ import annotations

import dramatiq

from actors import broker  # noqa: F401 (it is Dramatiq's global broker from here on)


@dramatiq.actor(queue_name="media")
def sharpen(path: str) -> str:
    """Share the queue ``media`` with the actors of the other pool."""
    return f"sharp {path}"


@dramatiq.actor(queue_name="reports")
def report(day: str) -> str:
    """Have a queue of its own."""
    return f"report of {day}"
