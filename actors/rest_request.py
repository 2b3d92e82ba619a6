"""``rest.request``: creates the job that an endpoint in 3ox.toml defines, from parts of the request.

    [rest.endpoints.deploy]
    job = "task.custom"
    project = "website"
    payload = { task = "Deploy {body.ref}" }

The new job is a child: it has the same trace id, source, actor and trust. Its type is set in 3ox.toml only,
never by the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import dramatiq

from actors.context import current_job, settings
from actors.job_types.rest_request import RestRequestPayload, RestRequestResult
from actors.request_template import fill
from middleware.broker.broker import BridgeBroker
from middleware.job.records import Receipt
from middleware.job.schema import Job, make_job
from ops.errors import InvalidJob, JobRefused, PolicyDenied, UnknownProject
from ops.settings.rest import EndpointSettings


def rest_request(payload: RestRequestPayload) -> RestRequestResult:
    """Create the job of the endpoint and submit it.

    Raises:
        JobRefused: The endpoint is unknown, the request lacks a part, or the new job is not valid or not
            allowed.
    """
    parent = current_job().job
    job = child_of(parent, payload, endpoint_settings(payload.endpoint))
    try:
        receipt = _submitter()(job)
    except (InvalidJob, UnknownProject, PolicyDenied) as error:
        raise JobRefused(f"Endpoint {payload.endpoint!r}: {error.message}", remedy=error.remedy) from error
    return RestRequestResult(
        job_id=receipt.job_id,
        job_type=receipt.job_type,
        status=receipt.status,
        duplicate=receipt.duplicate,
    )


def endpoint_settings(name: str) -> EndpointSettings:
    """Return an endpoint's settings from the current 3ox.toml.

    Raises:
        JobRefused: The endpoint does not exist.
    """
    endpoints = settings().settings.rest.endpoints
    found = endpoints.get(name)
    if found is None:
        known = ", ".join(sorted(endpoints)) if endpoints else "none"
        raise JobRefused(
            f"Unknown endpoint {name!r} (known: {known}).",
            remedy=f"Add it to 3ox.toml as [rest.endpoints.{name}] with job and payload.",
        )
    return found


def child_of(parent: Job, request: RestRequestPayload, endpoint: EndpointSettings) -> Job:
    """Return the job that a request creates.

    Args:
        parent: The ``rest.request`` job.
        request: Its payload.
        endpoint: The definition of the new job.

    Raises:
        JobRefused: The request lacks a part, or the new job is not valid.
    """
    if endpoint.job == parent.job_type:
        raise JobRefused(
            f"The endpoint {request.endpoint!r} creates another {endpoint.job}, which would never end.",
            remedy=f"Name another job type in [rest.endpoints.{request.endpoint}].",
        )
    try:
        return make_job(
            endpoint.job,
            fill(endpoint.payload, request),
            source=parent.source,
            actor=parent.actor,
            trust=parent.trust,
            trace_id=parent.trace,
            project=endpoint.project,
            session_id=None if endpoint.session_id is None else fill(endpoint.session_id, request),
            priority=parent.priority if endpoint.priority is None else endpoint.priority,
            # A retry after an attempt that was interrupted after submission finds the same job.
            idempotency_key=f"child:{parent.job_id}",
            metadata={"endpoint": request.endpoint, "parent": parent.job_id},
        )
    except InvalidJob as error:
        raise JobRefused(f"Endpoint {request.endpoint!r}: {error.message}", remedy=error.remedy) from error


def _submitter() -> Callable[[Job], Receipt]:
    """Return the function that submits a job from this worker."""
    broker = cast("BridgeBroker", dramatiq.get_broker())
    return lambda job: broker.admission.submit([job])[0]
