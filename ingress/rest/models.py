"""What goes in and comes out, where that is not a record of the job itself.

A request for a job is one of seven tagged structs, as the job is: what a caller may say of it. Who commands,
through which door and how far that is trusted is said by the door.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from middleware.job.records import OutputChunk
from middleware.job.schema import (
    Dependencies,
    Metadata,
    Name,
    OnDependencyFailure,
    Priority,
    Resources,
    Retries,
    Short,
    TimeLimit,
)
from middleware.job.types import (
    AskPayload,
    HeartbeatPayload,
    IngestFilePayload,
    RestRequestPayload,
    ShellCmdPayload,
    TaskCustomPayload,
    TelegramPayload,
)

#: An idempotency key gets a prefix of ours and may not exceed the 256 characters of the job's field.
KEY_MAX = 200
Key = Annotated[str, Meta(min_length=1, max_length=KEY_MAX, pattern=r"^[!-~]+$")]
_DELAY_MAX_S = 365 * 86_400


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="job_type"):
    """What can be said of a job of any type.

    Attributes:
        trace_id: Follows a command through all the jobs it causes.
        project: Of the job.
        session_id: Conversation it belongs to.
        priority: 1 is first, 10 last; the project's, or 5.
        timeout_seconds: Bound on one attempt.
        max_retries: Attempts after the first.
        depends_on: Job ids that have to be completed first.
        on_dependency_failure: What becomes of it when one of those does not complete: ``skip`` (it is
            cancelled), ``fail`` (a dead letter) or ``run`` (that one counts as done).
        resources: Named resources it occupies while it runs, with the amount of each.
        idempotency_key: As the header ``Idempotency-Key``.
        metadata: Free text pairs that travel along.
        delay_s: Start it so many seconds from now.
    """

    trace_id: Short | None = None
    project: Name | None = None
    session_id: Name | None = None
    priority: Priority | None = None
    timeout_seconds: TimeLimit | None = None
    max_retries: Retries | None = None
    depends_on: Dependencies = []
    on_dependency_failure: OnDependencyFailure = "skip"
    resources: Resources = {}
    idempotency_key: Key | None = None
    metadata: Metadata = {}
    delay_s: Annotated[float, Meta(ge=0, le=_DELAY_MAX_S)] | None = None


class AskRequest(JobRequest, frozen=True, kw_only=True, tag="ask"):
    """A question for a language model."""

    payload: AskPayload


class IngestFileRequest(JobRequest, frozen=True, kw_only=True, tag="ingest.file"):
    """A file to take in that lies in the workspace; to hand one over, use ``/v1/files``."""

    payload: IngestFilePayload


class TelegramRequest(JobRequest, frozen=True, kw_only=True, tag="telegram"):
    """A message as from a chat."""

    payload: TelegramPayload


class RestRequestRequest(JobRequest, frozen=True, kw_only=True, tag="rest.request"):
    """A request to an endpoint of 3ox.toml."""

    payload: RestRequestPayload


class ShellCmdRequest(JobRequest, frozen=True, kw_only=True, tag="shell.cmd"):
    """A command to run, if the policy allows it."""

    payload: ShellCmdPayload


class HeartbeatRequest(JobRequest, frozen=True, kw_only=True, tag="heartbeat"):
    """A canary."""

    payload: HeartbeatPayload = HeartbeatPayload()


class TaskCustomRequest(JobRequest, frozen=True, kw_only=True, tag="task.custom"):
    """A task for a project, if the policy allows it."""

    project: Name
    payload: TaskCustomPayload


AnyJobRequest: TypeAlias = (
    AskRequest
    | IngestFileRequest
    | TelegramRequest
    | RestRequestRequest
    | ShellCmdRequest
    | HeartbeatRequest
    | TaskCustomRequest
)


class Decision(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why something is done to a job; kept on its receipt.

    Attributes:
        reason: One sentence.
    """

    reason: Annotated[str, Meta(max_length=256)] = ""


class Health(Struct, frozen=True, kw_only=True):
    """Whether the bridge lives and serves.

    Attributes:
        status: ``ok``, or ``degraded`` while the store is away: jobs are then taken into the spool.
        live: This process answers.
        ready: The store answers.
        store: ``ok`` or ``away``.
        spool: Jobs kept on disk until the store takes them.
    """

    status: str
    live: bool
    ready: bool
    store: str
    spool: int


class Version(Struct, frozen=True, kw_only=True):
    """Which version serves."""

    name: str
    version: str
    schema_version: int


class JobResult(Struct, frozen=True, kw_only=True):
    """What a completed job came to."""

    job_id: str
    status: str
    result: Any


class OutputPage(Struct, frozen=True, kw_only=True):
    """Pieces of a job's output.

    Attributes:
        next: For ``after``, to go on; None: this was all there is by now.
        final: The job has ended: nothing more will come.
    """

    job_id: str
    chunks: list[OutputChunk]
    next: str | None
    final: bool


class UploadedFile(Struct, frozen=True, kw_only=True):
    """A file that lies in the drop folder now.

    Attributes:
        name: There; differs from the one sent if that was taken or could not be used.
        size_bytes: Of its content.
        sha256: Of its content; also the idempotency key of the job that the station makes of it.
    """

    name: str
    size_bytes: int
    sha256: str


class Upload(Struct, frozen=True, kw_only=True):
    """What was handed to the station."""

    files: list[UploadedFile]
