"""The read side: what a job has become, as the command line, REST and Python show it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from middleware.job.delivery import Delivery
from middleware.job.schema import POLICY_MARK, HeartbeatJob, Job, decode_job
from middleware.job.states import FINAL, State
from ops.errors import BridgeError, InvalidJob
from ops.resp import well_formed

#: Fields of ``job:ID`` that a record is made of; ``spec`` first.
LIFE_FIELDS = (
    "spec",
    "status",
    "created",
    "queued",
    "started",
    "completed",
    "due",
    "attempt",
    "crashes",
    "worker",
    "progress",
    "message",
    "reason",
    "error",
    "base",
    "approval",
    "deliveries",
)
_APPROVALS = {b"1": "waits"}


class JobError(Struct, frozen=True, omit_defaults=True):
    """Why a job failed."""

    type: str
    message: str
    remedy: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, *, traceback: str = "") -> JobError:
        """Tell of an exception; what UTF-8 cannot hold is replaced.

        Args:
            error: What an attempt ended with.
            traceback: As text; empty if it would say nothing more.
        """
        remedy = error.remedy if isinstance(error, BridgeError) else ""
        message = error.message if isinstance(error, BridgeError) else str(error)
        return cls(*(well_formed(text) for text in (type(error).__name__, message, remedy, traceback)))

    def encode(self) -> bytes:
        """Give it as the JSON that the store keeps."""
        return msgspec.json.encode(self)


class Attempt(Struct, frozen=True):
    """One attempt, read off the receipt chain."""

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
    """What the bridge vouches for: who commanded what, and what became of it.

    Attributes:
        input_sha256: Of the payload as canonical JSON (sorted keys, no spaces).
        result_sha256: Of the result as stored.
        duplicate: The command had been taken before; this is the first one's receipt.
        policy: The rule of 3ox.toml that let the job in, "rule 2: allow"; empty if none was needed.
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


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job in full; the fields of the public interface and a few more.

    Attributes:
        approval: ``waits``, ``approved``, ``denied`` or ``expired``; empty if nobody had to approve the job.
        deliveries: Where its result went or is going; only where one job is shown, or those undelivered.
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
        """Tell whether the job has ended."""
        return self.status in FINAL

    def to_json(self) -> bytes:
        """Give the record as JSON."""
        return msgspec.json.encode(self)


class JobPage(Struct, frozen=True):
    """A page of jobs, newest first.

    Attributes:
        summary: How many jobs are in each state, all pages together.
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


class OutputChunk(Struct, frozen=True):
    """A piece of a job's output; ``stream`` is ``out`` or ``err``."""

    entry_id: str
    stream: str
    text: str


def receipt_id_of(job_id: str) -> str:
    """Give the id of a job's receipt chain."""
    return f"r-{job_id}"


@lru_cache(maxsize=256)
def utc(at_ms: int | str | bytes | None) -> str | None:
    """Write milliseconds since 1970 as RFC 3339 with milliseconds, UTC."""
    if at_ms is None:
        return None
    seconds, rest_ms = divmod(int(at_ms), 1000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ms:03d}Z"


def utc_now() -> str:
    """Write the time by this machine's clock, as ``utc`` does."""
    return str(utc(time.time_ns() // 1_000_000))


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(value)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")


def make_record(
    job_id: str,
    life: list[bytes | None],
    *,
    result: bytes | None = None,
    chain: list[bytes] | None = None,
) -> JobRecord:
    """Put a record together from what the store holds.

    Args:
        job_id: Of the job.
        life: Values of ``LIFE_FIELDS``, in that order.
        result: What ``result:ID`` holds.
        chain: What ``receipts:ID`` holds; without it the record has no list of attempts.
    """
    row = dict(zip(LIFE_FIELDS, life, strict=True))
    job, job_type = _read_spec(job_id, row["spec"])
    created = row["created"]
    return JobRecord(
        job_id=job_id,
        trace_id=job.trace,
        job_type=job_type,
        status=_text(row["status"]),
        source=job.source,
        actor=job.actor,
        trust=job.trust,
        on_dependency_failure=job.on_dependency_failure,
        project=job.project,
        session_id=job.session_id,
        priority=job.priority,
        progress=_progress(row),
        progress_message=_text(row["message"]),
        attempt=_number(row["attempt"]),
        crashes=_number(row["crashes"]),
        max_retries=job.max_retries,
        worker_id=None if row["worker"] is None else _text(row["worker"]),
        payload=msgspec.to_builtins(job.payload),
        result=None if result is None else msgspec.json.decode(result),
        error=None if row["error"] is None else msgspec.json.decode(row["error"], type=JobError),
        created_at=utc(created),
        queued_at=utc(created if row["queued"] is None else row["queued"]),
        started_at=utc(row["started"]),
        completed_at=utc(row["completed"]),
        due_at=utc(row["due"]),
        depends_on=list(job.depends_on),
        receipt_id=receipt_id_of(job_id),
        reason=_reason(row),
        attempts=[] if chain is None else read_attempts(chain),
        timeout_seconds=job.timeout_seconds,
        resources=dict(job.resources),
        metadata=dict(job.metadata),
        idempotency_key=job.idempotency_key,
        approval=_approval(row["approval"]),
        version=job.version,
    )


def _read_spec(job_id: str, spec: bytes | None) -> tuple[Job, str]:
    """Read what was dispatched, and its type; of a job that another version wrote, what can be read."""
    data = b"{}" if spec is None else spec
    try:
        job = decode_job(data)
    except InvalidJob:
        try:
            raw = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.MsgspecError:
            raw = {}
        stand_in = HeartbeatJob(job_id=job_id, source="unknown", metadata={"unreadable": "true"})
        return stand_in, str(raw.get("job_type", "unknown"))
    return job, job.job_type


def _approval(value: bytes | None) -> str:
    return "" if value is None else _APPROVALS.get(value, value.decode())


def _progress(row: dict[str, bytes | None]) -> float:
    if row["status"] == b"completed":
        return 100.0
    return 0.0 if row["progress"] is None else float(row["progress"])


def _reason(row: dict[str, bytes | None]) -> str:
    """Give one sentence that says why the job is where it is; most states speak for themselves."""
    said = _text(row["reason"])
    if said:
        return said
    status = _text(row["status"])
    attempt, worker = _number(row["attempt"]), _text(row["worker"])
    if status == State.QUEUED:
        return "it waits for a free worker"
    if status == State.PROCESSING:
        lost = _number(row["crashes"])
        said = f"attempt {attempt} runs on {worker}"
        return f"{said}; {lost} before it lost their worker" if lost else said
    if status == State.COMPLETED:
        return f"attempt {attempt} succeeded"
    return status


class _Line(Struct):
    """A line of the receipt chain as the scripts write it."""

    at: int
    status: str
    attempt: int = 0
    worker: str | None = None
    reason: str = ""
    input_sha256: str = ""
    result_sha256: str | None = None


_line_decoder = msgspec.json.Decoder(_Line)


def read_attempts(chain: list[bytes]) -> list[Attempt]:
    """Read the attempts off a receipt chain."""
    attempts: list[Attempt] = []
    open_attempt = False
    for raw in chain:
        line = _line_decoder.decode(raw)
        at = str(utc(line.at))
        if line.status == State.PROCESSING:
            attempts.append(Attempt(line.attempt, line.worker, at))
            open_attempt = True
        elif open_attempt:
            attempts[-1] = msgspec.structs.replace(
                attempts[-1], ended_at=at, status=line.status, reason=line.reason
            )
            open_attempt = False
    return attempts


def make_receipt(job: Job, chain: list[bytes], *, duplicate: bool = False) -> Receipt:
    """Put a receipt together from the job and its receipt chain."""
    lines = [_line_decoder.decode(raw) for raw in chain]
    last = lines[-1]
    ran = [line for line in lines if line.attempt]
    ends = [line for line in lines if line.attempt and line.status not in {State.PROCESSING, State.QUEUED}]
    return Receipt(
        receipt_id=receipt_id_of(job.job_id),
        job_id=job.job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        source=job.source,
        actor=job.actor,
        trust=job.trust,
        project=job.project,
        status=last.status,
        attempt=ran[-1].attempt if ran else 0,
        worker_id=next((line.worker for line in reversed(lines) if line.worker), None),
        input_sha256=lines[0].input_sha256,
        result_sha256=ends[-1].result_sha256 if ends else None,
        created_at=str(utc(lines[0].at)),
        updated_at=str(utc(last.at)),
        transitions=[
            Transition(str(utc(line.at)), line.status, line.attempt, line.worker, line.reason)
            for line in lines
        ],
        duplicate=duplicate,
        policy=job.metadata.get(POLICY_MARK, ""),
    )


def new_receipt(job: Job, *, status: str, at_ms: int, input_sha256: str) -> Receipt:
    """Make the receipt of a job that has just been taken, without reading it back."""
    at = str(utc(at_ms))
    return Receipt(
        receipt_id=receipt_id_of(job.job_id),
        job_id=job.job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        source=job.source,
        actor=job.actor,
        trust=job.trust,
        project=job.project,
        status=status,
        input_sha256=input_sha256,
        created_at=at,
        updated_at=at,
        transitions=[Transition(at, status)],
        policy=job.metadata.get(POLICY_MARK, ""),
    )
