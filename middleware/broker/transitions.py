"""Arguments and replies of the store functions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from middleware.job.keys import QUEUE


class Enqueued(Struct, frozen=True, gc=False):
    """Reply of ``enqueue`` for one job.

    Attributes:
        outcome: ``new``, ``duplicate``, ``full`` or ``dependency``.
        job_id: Id of the job; for ``dependency`` the one it depends on.
        status: Status of that job.
        at_ms: When it was enqueued.
        waiting: For ``full``: number of jobs that wait.
    """

    outcome: str
    job_id: str = ""
    status: str = ""
    at_ms: int = 0
    waiting: int = 0


class Delivered(Struct, frozen=True, gc=False):
    """One job in a reply of ``fetch``.

    Attributes:
        job_id: Id of the job.
        spec: The job, JSON.
        attempt: Number of this attempt, from 1.
        base_attempt: Number of attempts before the last retry by hand.
        created_ms: When the job was created.
    """

    job_id: str
    spec: bytes
    attempt: int
    base_attempt: int
    created_ms: int
    options: bytes = b""


class Fetched(Struct, frozen=True):
    """Reply of ``fetch``.

    Attributes:
        next_due_ms: Time until the next job is due; -1 if there is none.
        jobs: The jobs to run.
    """

    next_due_ms: int
    jobs: list[Delivered]


class EnqueueRequest(Struct, frozen=True, kw_only=True, gc=False):
    """Arguments of ``enqueue`` for one job."""

    job_id: str
    priority: int
    spec: bytes
    job_type: str
    input_sha256: str
    queue: str = QUEUE
    project: str = ""
    delay_ms: int = 0
    idempotency_key: str = ""
    limits: str = ""
    depends_on: Sequence[str] = ()
    approval: str = ""
    sinks: str = ""


class GroupMember(Struct, frozen=True, kw_only=True):
    """Membership of a job in a group whose end has followers.

    Attributes:
        group_id: Id of the group; its size is in the store, see ``create_group``.
        ttl_ms: How long the group is kept while it is unfinished.
        followers: Jobs that are enqueued when its last member completes.
    """

    group_id: str
    ttl_ms: int
    followers: tuple[EnqueueRequest, ...] = ()


class Settlement(Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    Attributes:
        outcome: ``completed``, ``failed``, ``cancelled``, ``retrying``, or ``queued`` (handed back, not
            counted).
        result: JSON, or empty.
        error: JSON, or empty.
        delay_ms: For ``retrying``: time until the next attempt.
        reason: Why, in one sentence.
        options: Options of the message for the next attempt, JSON; empty: as they were.
        followers: Jobs that follow this attempt; they are enqueued in the same step.
        group: Group of which this job is a member.
    """

    outcome: str
    result: bytes = b""
    error: bytes = b""
    delay_ms: int = 0
    reason: str = ""
    options: bytes = b""
    followers: tuple[EnqueueRequest, ...] = ()
    group: GroupMember | None = None


class Bounds(Struct, frozen=True, kw_only=True):
    """Limits that the functions enforce; see the settings of the same names.

    Attributes:
        crash_pause_ms: Wait of a job after its second crash, see ``recover.lua``; not a setting.
        output_entries_max: Pieces of output kept per job; not a setting.
        types_ttl_ms: How long a job type is known after the last worker that carried it; not a setting.
    """

    events_max: int = 10_000
    queue_max: int = 1_000_000
    idempotency_ttl_ms: int = 86_400_000
    retention_ms: int = 604_800_000
    finished_max: int = 200_000
    max_crashes: int = 3
    crash_pause_ms: int = 1000
    types_ttl_ms: int = 30 * 86_400_000
    output_entries_max: int = 10_000
