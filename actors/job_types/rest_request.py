"""``rest.request``: a request to an endpoint of 3ox.toml. Its actor is in ``actors.rest_request``."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from middleware.job.types import JOB_TYPES, JobType, NonEmpty, Payload


class RestRequestPayload(Payload, frozen=True, kw_only=True):
    """A request to an endpoint of 3ox.toml."""

    endpoint: NonEmpty
    method: str = "POST"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


class RestRequestResult(Struct, frozen=True, kw_only=True):
    """Result of ``rest.request``.

    Attributes:
        job_id: Id of the new job.
        job_type: Its type.
        status: Its state after submission.
        duplicate: Whether an earlier attempt had created it.
    """

    job_id: str
    job_type: str
    status: str
    duplicate: bool = False


JOB_TYPES.add(
    JobType(
        name="rest.request",
        summary="A request to an endpoint of 3ox.toml.",
        payload=RestRequestPayload,
        result=RestRequestResult,
        actor="actors.rest_request:rest_request",
        delivers=True,
        title=("endpoint",),
        example={"endpoint": "deploy", "body": {"ref": "main"}},
    )
)
