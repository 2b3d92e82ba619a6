"""The states of a job and the moves between them, in one table.

    enqueue ─▶ queued ──▶ processing ──▶ completed
       │         ▲ ▲         │  │  │
       ├▶ scheduled┘         │  │  ├───▶ failed ──▶ queued   (retry by hand; `held` if
       └▶ held ────┘         │  │  └───▶ cancelled ─▶ queued  what it depends on is not completed)
                 ▲           │  └▶ retrying ──▶ queued
                 └───────────┘ (handed back, recovered; after a second crash `retrying`)

Every state is one sorted set in the store, so that a job is in exactly one place; the scripts hold the
same table (``prelude.lua``) and refuse any other move. The tests walk all of it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    HELD = "held"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Tell whether a job in this state has ended."""
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PROCESSING, State.HELD, State.CANCELLED}),
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.SCHEDULED, State.CANCELLED, State.FAILED}),
    State.PROCESSING: frozenset(
        {State.COMPLETED, State.FAILED, State.CANCELLED, State.RETRYING, State.QUEUED},
    ),
    State.RETRYING: frozenset({State.QUEUED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.QUEUED, State.HELD}),
    State.CANCELLED: frozenset({State.QUEUED, State.HELD}),
}
