"""Bodies of requests and responses, except the job's own records.

A request for a job is a tagged struct for each built-in job type, derived from ``JOB_TYPES``, and one struct
for all other types: what a client may set. Source, actor and trust are set by the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

import msgspec
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
    TypeName,
)
from middleware.job.records import OutputChunk
from middleware.job.types import JOB_TYPES

#: With its prefix, an idempotency key must fit the 256 characters of the job's field.
KEY_MAX = 200
Key = Annotated[str, Meta(min_length=1, max_length=KEY_MAX, pattern=r"^[!-~]+$")]
_DELAY_MAX_S = 365 * 86_400


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="job_type"):
    """Fields of a job of any type.

    Attributes:
        trace_id: Identifies a command in all the jobs that it causes.
        project: Project of the job.
        session_id: Conversation that the job belongs to.
        priority: 1 is the highest, 10 the lowest; default: the project's, or 5.
        timeout_seconds: Time limit of one attempt.
        max_retries: Attempts after the first.
        depends_on: Ids of jobs that must be completed first.
        on_dependency_failure: Effect of a dependency that does not complete: ``skip`` (this job is
            cancelled), ``fail`` (it fails) or ``run`` (the dependency counts as completed).
        resources: Named resources that the job occupies while it runs, with the amount of each.
        idempotency_key: Same as the header ``Idempotency-Key``.
        metadata: Pairs of text stored with the job.
        delay_s: Delay before the job is queued, in seconds.
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


_BUILT_IN = [item.name for item in JOB_TYPES.declared()]


class ActorRequest(JobRequest, frozen=True, kw_only=True, tag=False):
    """A job of a type that is not built in; ``GET /v1/types`` lists them with their payloads.

    Attributes:
        job_type: Name of the type: that of its Dramatiq actor.
        payload: The arguments of the actor by name, checked against the schema of the type.
    """

    # A field here, since no struct stands for the type.
    job_type: Annotated[TypeName, Meta(extra_json_schema={"not": {"enum": _BUILT_IN}})]
    payload: dict[str, Any] = {}


def request_schema() -> dict[str, Any]:
    """Return the JSON Schema of a request for a job: a variant for each built-in type, one for all others."""
    (built_in, other), _ = msgspec.json.schema_components(
        [AnyJobRequest, ActorRequest], ref_template="#/components/schemas/{name}"
    )
    return {"oneOf": [*built_in["anyOf"], other]}


class Decision(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The reason for an action on a job; recorded in its receipt.

    Attributes:
        reason: One sentence.
    """

    reason: Annotated[str, Meta(max_length=256)] = ""


class Health(Struct, frozen=True, kw_only=True):
    """Liveness and readiness.

    Attributes:
        status: ``ok``, or ``degraded`` while the store is unavailable: jobs are then accepted into the spool.
        live: This process answers.
        ready: The store answers.
        store: ``ok`` or ``away`` (unavailable).
        spool: Jobs on disk that the store has not accepted yet.
    """

    status: str
    live: bool
    ready: bool
    store: str
    spool: int


class Version(Struct, frozen=True, kw_only=True):
    """The version of the API process."""

    name: str
    version: str
    schema_version: int


class JobResult(Struct, frozen=True, kw_only=True):
    """The result of a completed job."""

    job_id: str
    status: str
    result: Any


class OutputPage(Struct, frozen=True, kw_only=True):
    """A page of a job's output.

    Attributes:
        next: Value of ``after`` for the next page; None on the last one.
        final: The job has finished, and this page is the last.
    """

    job_id: str
    chunks: list[OutputChunk]
    next: str | None
    final: bool


class UploadedFile(Struct, frozen=True, kw_only=True):
    """An uploaded file and its job.

    Attributes:
        name: Name of the file; differs from the name sent if that was not usable.
        size_bytes: Size of the content.
        sha256: Hash of the content.
        job_id: Id of its `ingest.file` job; null if it is refused.
        status: State of the job; `spooled` while the store is unavailable; `claimed` if the station submits
            it later; `refused` if it is not accepted and the file is not stored.
        same_content: Id of an earlier job of the same content; null if there is none.
        reason: Why it is claimed or refused; empty otherwise.
    """

    name: str
    size_bytes: int
    sha256: str
    job_id: str | None
    status: str
    same_content: str | None
    reason: str


class Upload(Struct, frozen=True, kw_only=True):
    """The uploaded files."""

    files: list[UploadedFile]
