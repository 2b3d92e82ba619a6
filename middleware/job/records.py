"""Records of jobs, receipts, events and output, as the command line, REST and Python show them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Struct

from middleware.job.states import FINAL
from ops.errors import BridgeError
from ops.store.resp import well_formed

#: The end of a traceback and the beginning of an error's texts are kept, up to these lengths.
TRACEBACK_MAX_CHARS = 4_000
_TEXT_MAX_CHARS = 4_000


class JobError(Struct, frozen=True):
    """Why a job failed; what is unknown is an empty text."""

    type: str
    message: str
    remedy: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, *, traceback: str = "") -> JobError:
        """Return the description of an exception, shortened; what UTF-8 cannot encode is replaced.

        Args:
            error: What an attempt raised.
            traceback: Its traceback as text; empty if the error is an expected one.
        """
        remedy = error.remedy if isinstance(error, BridgeError) else ""
        message = error.message if isinstance(error, BridgeError) else str(error)
        texts = (type(error).__name__, message[:_TEXT_MAX_CHARS], remedy[:_TEXT_MAX_CHARS])
        return cls(*map(well_formed, (*texts, traceback[-TRACEBACK_MAX_CHARS:])))

    def encode(self) -> bytes:
        """Return it as the JSON that the store keeps."""
        return msgspec.json.encode(self)


class Attempt(Struct, frozen=True):
    """One attempt, as the receipt chain records it."""

    attempt: int
    worker_id: str | None
    started_at: str
    ended_at: str | None = None
    status: str = "processing"
    reason: str = ""


class Transition(Struct, frozen=True, gc=False):
    """One line of the receipt chain."""

    at: str
    status: str
    attempt: int = 0
    worker_id: str | None = None
    reason: str = ""


class Receipt(Struct, frozen=True, kw_only=True, gc=False):
    """Who submitted which job, and what happened to it.

    Attributes:
        input_sha256: Hash of the payload as canonical JSON (sorted keys, no spaces).
        result_sha256: Hash of the result as stored.
        duplicate: The idempotency key was used before; this is the receipt of the first job.
        policy: The rule of 3ox.toml that admitted the job, such as "rule 2: allow"; empty if none matched.
    """

    receipt_id: str
    job_id: str
    trace_id: str
    job_type: str
    source: str
    actor: str
    project: str | None
    status: str
    trust: str = "operator"
    attempt: int = 0
    worker_id: str | None = None
    input_sha256: str = ""
    result_sha256: str | None = None
    created_at: str = ""
    updated_at: str = ""
    transitions: list[Transition] = []
    duplicate: bool = False
    policy: str = ""


class AttemptCount(Struct, frozen=True, kw_only=True, gc=False):
    """Which attempt of how many; the numbers and words of it, wherever people read them.

    Attributes:
        attempt: Number of the latest attempt, as in receipts: all that were made count.
        max_retries: Retries that the job has; None if that is not limited.
        lost: Attempts whose worker was lost; they use up no retry, like the following.
        parked: Attempts that a provider or the machine asked to wait.
        before: Attempts before the last retry by hand, which gave the job a new set.
    """

    attempt: int
    max_retries: int | None
    lost: int = 0
    parked: int = 0
    before: int = 0

    @property
    def most(self) -> int | None:
        """Number of the last attempt that the job may have; None if that is not limited."""
        if self.max_retries is None:
            return None
        most = self.before + self.lost + self.parked + 1 + self.max_retries
        return None if self.attempt > most else most

    @property
    def numbers(self) -> str:
        """``2 of 4``; without a limit, or where one attempt is all there is, ``2``."""
        return str(self.attempt) if self.most is None or self.most == 1 else f"{self.attempt} of {self.most}"

    @property
    def label(self) -> str:
        """``attempt 2 of 4``."""
        return f"attempt {self.numbers}"

    @property
    def notes(self) -> list[str]:
        """What attempts were for, beside those that failed: ``1 lost its worker``, ``1 parked``, ..."""
        notes = []
        if self.lost:
            notes.append(f"{self.lost} lost {'its' if self.lost == 1 else 'their'} worker")
        if self.parked:
            notes.append(f"{self.parked} parked")
        if self.before:
            notes.append(f"{self.before} before the retry by hand")
        return notes

    def __str__(self) -> str:
        """``2 of 4, 1 lost its worker``; empty before the first attempt."""
        return ", ".join([self.numbers, *self.notes]) if self.attempt else ""

    def failed(self, cause: str) -> str:
        """Return the reason of a job whose last attempt failed."""
        where = "" if self.most == 1 else f" in {self.label}"
        return f"failed{where}: {cause}"


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job with all its fields.

    Attributes:
        attempts_before: Attempts before the last retry by hand.
        parked: Attempts since then that had to wait for a provider or the machine.
        approval: ``waits``, ``approved``, ``denied`` or ``expired``; empty if no approval was required.
        deliveries: Deliveries of its result; set where one job is shown, and in the list of undelivered ones.
    """

    job_id: str
    trace_id: str
    job_type: str
    status: str
    source: str
    actor: str
    project: str | None
    session_id: str | None
    priority: int
    progress: float = 0.0
    progress_message: str = ""
    attempt: int = 0
    crashes: int = 0
    attempts_before: int = 0
    parked: int = 0
    max_retries: int | None = None
    worker_id: str | None = None
    payload: Any = None
    result: Any = None
    error: JobError | None = None
    created_at: str | None = None
    queued_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    due_at: str | None = None
    depends_on: list[str] = []
    receipt_id: str = ""
    reason: str = ""
    attempts: list[Attempt] = []
    timeout_seconds: float | None = None
    resources: dict[str, int] = {}
    metadata: dict[str, str] = {}
    trust: str = "operator"
    on_dependency_failure: str = "skip"
    idempotency_key: str | None = None
    approval: str = ""
    deliveries: list[Delivery] = []
    version: int = 1

    @property
    def is_final(self) -> bool:
        """Whether the job has finished."""
        return self.status in FINAL

    @property
    def attempt_count(self) -> AttemptCount:
        """Which attempt of how many."""
        return AttemptCount(
            attempt=self.attempt,
            max_retries=self.max_retries,
            lost=self.crashes,
            parked=self.parked,
            before=self.attempts_before,
        )

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)


class JobPage(Struct, frozen=True):
    """A page of jobs, newest first.

    Attributes:
        summary: Number of jobs in each state, on all pages together.
        next: Cursor of the next page, None on the last one.
    """

    jobs: list[JobRecord]
    summary: dict[str, int]
    next: str | None = None


class JobEvent(Struct, frozen=True):
    """A change of a job; ``kind`` is ``state`` or ``progress``."""

    event_id: str
    job_id: str
    kind: str
    status: str
    progress: float | None = None
    message: str = ""
    at: str = ""


#: Which output of a job: stdout or stderr.
StreamName = Literal["out", "err"]


class OutputChunk(Struct, frozen=True):
    """A piece of a job's output; ``stream`` is ``out`` or ``err``."""

    entry_id: str
    stream: str
    text: str


def receipt_id_of(job_id: str) -> str:
    """Return the id of a job's receipt."""
    return f"r-{job_id}"


@lru_cache(maxsize=256)
def utc(at_ms: int | str | bytes | None) -> str | None:
    """Return milliseconds since 1970 as RFC 3339 with milliseconds, UTC; None for None."""
    if at_ms is None:
        return None
    seconds, rest_ms = divmod(int(at_ms), 1000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ms:03d}Z"


def ms_of(at: str) -> int:
    """Return the milliseconds since 1970 of a text of ``utc``."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def utc_now() -> str:
    """Return the time by this machine's clock as a text of ``utc``."""
    return str(utc(time.time_ns() // 1_000_000))


class Delivery(Struct, frozen=True, kw_only=True):
    """The delivery of a job's result to one destination.

    Attributes:
        sink: ``outbox``, ``webhook:NAME``, ``notify:NAME:NUMBER`` or ``telegram``.
        status: State of the delivery, which is a job of its own: ``completed`` when it has arrived,
            ``failed`` when no attempts are left.
        due_at: Time of its next attempt.
    """

    delivery_id: str
    sink: str
    status: str
    attempt: int = 0
    reason: str = ""
    delivered_at: str | None = None
    due_at: str | None = None
