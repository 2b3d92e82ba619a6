"""What goes in and comes out, where that is not a record of the job itself.

A request for a job is a tagged struct for each job type, derived from ``JOB_TYPES``: what a client may set.
Source, actor and trust are set by the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from msgspec import Meta, Struct

from middleware.job.base import (
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
from middleware.job.records import OutputChunk
from middleware.job.types import JOB_TYPES

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

    payload: Any
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


if TYPE_CHECKING:
    AnyJobRequest: TypeAlias = JobRequest
else:
    AnyJobRequest = Union[  # noqa: UP007 (of a computed tuple)
        tuple(item.struct(JobRequest, "Request") for item in JOB_TYPES.declared() if not item.internal)
    ]


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
