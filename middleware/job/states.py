"""The states of a job and the transitions between them.

    enqueue ─▶ queued ──▶ processing ──▶ completed
       │         ▲ ▲         │  │  │
       ├▶ scheduled┘         │  │  ├───▶ failed ──▶ queued   (retry by hand; `held` if
       └▶ held ────┘         │  │  └───▶ cancelled ─▶ queued  what it depends on is not completed)
                 ▲           │  └▶ retrying ──▶ queued
                 └───────────┘ (handed back, recovered; after a second crash `retrying`)

Every state is one sorted set in the store, so a job is in exactly one state. The store functions have the
same table (``prelude.lua``) and refuse any other transition; the tests try all of them.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """State of a job."""

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
        """Whether it is final: the job has finished."""
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PROCESSING, State.HELD, State.CANCELLED}),
    State.SCHEDULED: frozenset({State.QUEUED, State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.SCHEDULED, State.CANCELLED, State.FAILED}),
    State.PROCESSING: frozenset(
        {State.COMPLETED, State.FAILED, State.CANCELLED, State.RETRYING, State.QUEUED, State.HELD},
    ),
    State.RETRYING: frozenset({State.QUEUED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.QUEUED, State.HELD}),
    State.CANCELLED: frozenset({State.QUEUED, State.HELD}),
}
