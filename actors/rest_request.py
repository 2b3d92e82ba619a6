"""``rest.request``: a request to an endpoint of 3ox.toml becomes the job that the endpoint names.

    [rest.endpoints.deploy]
    job = "task.custom"
    project = "website"
    payload = { task = "Deploy {body.ref}" }

The job it makes is a child: it has the same trace id, source and actor, and is no more trusted. Which type of
job that is stands in 3ox.toml and nowhere in the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import dramatiq
import msgspec
from msgspec import Struct

from actors.context import current_job, settings
from middleware.broker.broker import BridgeBroker
from middleware.job.records import Receipt
from middleware.job.schema import Job, make_job
from middleware.job.types import RestRequestPayload
from ops.errors import InvalidJob, JobRefused, PolicyDenied, UnknownProject
from ops.settings.rest import EndpointSettings

#: A part of the request: where it is, and the way to it.
_PART = re.compile(r"\{(body|query|headers)((?:\.[^.{}]+)*)\}")
#: A value filled in longer than this is no name, number or sentence any more.
_TEXT_MAX = 65_536


class RestRequestResult(Struct, frozen=True, kw_only=True):
    """What became of the request.

    Attributes:
        job_id: Of the job that it turned into.
        job_type: Its type.
        status: In which it was taken.
        duplicate: It had been made by an earlier attempt.
    """

    job_id: str
    job_type: str
    status: str
    duplicate: bool = False


def rest_request(payload: RestRequestPayload) -> RestRequestResult:
    """Make the job that the request stands for.

    Raises:
        JobRefused: There is no such endpoint, the request lacks a part that it needs, or the job that comes
            out is not one that the bridge takes.
    """
    parent = current_job().job
    job = child_of(parent, payload, endpoint_settings(payload.endpoint))
    try:
        receipt = _submitter()(job)
    except (InvalidJob, UnknownProject, PolicyDenied) as error:
        raise JobRefused(f"endpoint {payload.endpoint!r}: {error.message}", remedy=error.remedy) from error
    return RestRequestResult(
        job_id=receipt.job_id,
        job_type=receipt.job_type,
        status=receipt.status,
        duplicate=receipt.duplicate,
    )


def endpoint_settings(name: str) -> EndpointSettings:
    """Give an endpoint's settings, as 3ox.toml says now.

    Raises:
        JobRefused: There is none of this name.
    """
    endpoints = settings().settings.rest.endpoints
    found = endpoints.get(name)
    if found is None:
        known = ", ".join(sorted(endpoints)) if endpoints else "none"
        raise JobRefused(
            f"there is no endpoint {name!r} (there are: {known}).",
            remedy="Endpoints stand in 3ox.toml as [rest.endpoints.NAME] with job and payload.",
        )
    return found


def child_of(parent: Job, request: RestRequestPayload, endpoint: EndpointSettings) -> Job:
    """Build the job that a request turns into.

    Args:
        parent: The ``rest.request`` job.
        request: Its payload.
        endpoint: Which job, and from which parts.

    Raises:
        JobRefused: The request lacks a part, or what comes out is no valid job.
    """
    if endpoint.job == parent.job_type:
        raise JobRefused(
            f"endpoint {request.endpoint!r} turns into another {endpoint.job}, which would never end.",
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
            # An attempt that was cut off after this job was taken finds it again.
            idempotency_key=f"child:{parent.job_id}",
            metadata={"endpoint": request.endpoint, "parent": parent.job_id},
        )
    except InvalidJob as error:
        raise JobRefused(f"endpoint {request.endpoint!r}: {error.message}", remedy=error.remedy) from error


def fill(template: Any, request: RestRequestPayload) -> Any:
    """Fill the parts of a request into a template, at every depth.

    Args:
        template: Texts with ``{body.a.b}``, ``{query.a}``, ``{headers.a}`` in them, in lists and tables too.
        request: Where the parts come from.

    Raises:
        JobRefused: A part is not there.
    """
    if isinstance(template, dict):
        return {key: fill(item, request) for key, item in template.items()}
    if isinstance(template, list):
        return [fill(item, request) for item in template]
    if not isinstance(template, str):
        return template
    whole = _PART.fullmatch(template)
    if whole is not None:
        return _part(request, whole)
    return _PART.sub(lambda found: _as_text(_part(request, found)), template)


def _part(request: RestRequestPayload, found: re.Match[str]) -> Any:
    value: Any = getattr(request, found[1])
    for step in found[2].split(".")[1:]:
        name = step.lower() if found[1] == "headers" else step
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and len(name) <= 9 and int(name) < len(value):  # noqa: PLR2004
            value = value[int(name)]
        else:
            raise JobRefused(
                f"the request to {request.endpoint!r} has no {found[0].strip('{}')}.",
                remedy=f"Send it, or take it out of [rest.endpoints.{request.endpoint}].",
            )
    return value


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > _TEXT_MAX:
        raise JobRefused(
            f"a part of the request has {len(text)} characters, at most {_TEXT_MAX} are filled in.",
            remedy="Send less, or pass the part as a whole.",
        )
    return text


def _submitter() -> Callable[[Job], Receipt]:
    """Give what takes a job in this worker."""
    broker = cast("BridgeBroker", dramatiq.get_broker())
    return lambda job: broker.admission.submit([job])[0]
