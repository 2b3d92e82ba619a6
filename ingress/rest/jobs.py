"""Routes for jobs: submit a job, read it and its parts."""

from __future__ import annotations

import math
from itertools import islice
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, Parameter

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import principal_of, requires
from ingress.core.http.problems import ApiProblem, refused
from ingress.core.lookup import Source, find
from ingress.rest.contract import BODY, JobPart, problems
from ingress.rest.job_queries import encoded_job, wait_for_end
from ingress.rest.models import (
    KEY_MAX,
    ActorRequest,
    AnyJobRequest,
    JobRequest,
    JobResult,
    OutputPage,
    request_schema,
)
from middleware.job.reader import LIMIT_MAX
from middleware.job.receipt import payload_sha256
from middleware.job.records import JobRecord, Receipt
from middleware.job.schema import Job, make_job
from middleware.job.states import State
from ops.errors import InvalidJob
from ops.tokens import Principal
from ops.trace_ids import traceparent

_DAY_S = 86_400
#: Prefix of clients' idempotency keys, so that they cannot collide with those of another interface.
KEY_PREFIX = "rest:"

#: The body of ``POST /v1/jobs``, for the OpenAPI document: the framework does not support its union.
BODIES: dict[str, Any] = {
    "createJob": {"required": True, "content": {"application/json": {"schema": request_schema()}}}
}

Wait = Annotated[
    float,
    Parameter(
        ge=0,
        le=_DAY_S,
        description="Wait up to this many seconds until the job has finished; at most wait_max_s.",
    ),
]


def to_job(wanted: JobRequest, principal: Principal, key: str | None, *, trace: str | None = None) -> Job:
    """Return the job that a request describes.

    Args:
        wanted: Body of the request.
        principal: The caller.
        key: Header ``Idempotency-Key``.
        trace: Trace id of the header ``traceparent``; used if the body has none.

    Raises:
        ApiProblem: Header and body have different idempotency keys.
        InvalidJob: The job is not valid.
    """
    if key is not None and wanted.idempotency_key not in {None, key}:
        raise ApiProblem(
            409,
            "idempotency-key",
            "The header and the body have different idempotency keys.",
            remedy="Send one of them.",
            field="idempotency_key",
        )
    chosen = wanted.idempotency_key if key is None else key
    return make_job(
        wanted.job_type if isinstance(wanted, ActorRequest) else str(wanted.__struct_config__.tag),
        wanted.payload,
        source="rest",
        actor=principal.name,
        trust="member",
        trace_id=trace if wanted.trace_id is None else wanted.trace_id,
        project=wanted.project,
        session_id=wanted.session_id,
        priority=wanted.priority,
        timeout_seconds=wanted.timeout_seconds,
        max_retries=wanted.max_retries,
        depends_on=wanted.depends_on,
        on_dependency_failure=wanted.on_dependency_failure,
        resources=wanted.resources,
        metadata=wanted.metadata,
        idempotency_key=None if chosen is None else KEY_PREFIX + chosen,
    )


def accept(app_state: AppState, job: Job, *, delay_s: float | None = None) -> Response[Receipt]:
    """Accept a job and return its receipt: 202 for a new job, 200 for one that was accepted before.

    Raises:
        ApiProblem: The bridge does not accept the job, or its key belongs to another one.
    """
    try:
        receipt = app_state.acceptance.accept(job, delay_s=delay_s)
    except InvalidJob as error:
        raise refused(error) from error
    if receipt.duplicate and not _is_same(receipt, job):
        raise ApiProblem(
            409,
            "idempotency-key",
            f"This idempotency key belongs to another job, {receipt.job_id}.",
            remedy="Use a new key for a new job.",
            field="idempotency_key",
        )
    return Response(
        receipt,
        status_code=200 if receipt.duplicate else 202,
        headers={"Location": f"/v1/jobs/{receipt.job_id}"},
    )


def _is_same(receipt: Receipt, job: Job) -> bool:
    return (receipt.job_type, receipt.project, receipt.input_sha256) == (
        job.job_type,
        job.project,
        payload_sha256(job),
    )


@post(
    "/v1/jobs",
    status_code=202,
    operation_id="createJob",
    summary="Submit a job",
    description="202 with the receipt of a new job (status 'spooled' while the store is unavailable);"
    " 200 with the receipt of the existing job if the Idempotency-Key is known. 409 for a job type that no"
    " worker has published, and for arguments that do not fit one that is not built in (`GET /v1/types`).",
    guards=[requires("submit")],
    opt={"body": AnyJobRequest, "actor_body": ActorRequest},
    responses={
        200: ResponseSpec(Receipt, generate_examples=False, description="The job was submitted before."),
        **problems(409, *BODY),
    },
)
async def create_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    data: JSONBody[Any],
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            min_length=1,
            max_length=KEY_MAX,
            pattern="^[!-~]+$",
            description="A repeated key returns the same job.",
        ),
    ] = None,
) -> Response[Receipt]:
    """Submit a job."""
    trace = traceparent(request.headers.get("traceparent"))
    job = to_job(data, principal_of(request), idempotency_key, trace=trace)
    return await sync_to_thread(accept, app_state, job, delay_s=data.delay_s)


@get(
    "/v1/jobs/{job_id:str}",
    operation_id="getJob",
    summary="One job in full",
    guards=[requires("view")],
    responses={
        200: ResponseSpec(JobRecord, generate_examples=False, description="The job."),
        **problems(404, 409),
    },
)
async def get_job(app_state: AppStateDependency, job_id: JobPart, wait: Wait = 0.0) -> Response[bytes]:
    """Return a job, with ``wait`` when it has finished or the time is up."""
    if seconds(wait) > 0:
        answer = msgspec.json.encode(await wait_for_end(app_state, job_id, wait))
    else:
        answer = await encoded_job(app_state, job_id)
    return Response(answer, media_type="application/json")


def seconds(wait: float) -> float:
    """Check the parameter ``wait`` and return it.

    Raises:
        ApiProblem: It is not a finite number.
    """
    if not math.isfinite(wait):
        raise ApiProblem(
            400,
            "invalid-request",
            "`wait` must be a number of seconds.",
            remedy="Send a finite number.",
            field="wait",
        )
    return wait


@get(
    "/v1/jobs/{job_id:str}/receipt",
    operation_id="getReceipt",
    summary="A job's receipt",
    guards=[requires("view")],
    responses=problems(404, 409),
)
async def get_receipt(app_state: AppStateDependency, job_id: JobPart) -> Receipt:
    """Return the receipt."""
    return await sync_to_thread(lambda: find(app_state.read_bridge, job_id).receipt())


@get(
    "/v1/jobs/{job_id:str}/result",
    operation_id="getResult",
    summary="Result of a completed job",
    description="409 while the job has not finished, and for a failed or cancelled job.",
    guards=[requires("view")],
    responses=problems(404, 409),
)
async def get_result(app_state: AppStateDependency, job_id: JobPart, wait: Wait = 0.0) -> JobResult:
    """Return the result."""
    record = await wait_for_end(app_state, job_id, seconds(wait))
    if record.status == State.COMPLETED:
        return JobResult(job_id=record.job_id, status=record.status, result=record.result)
    why = record.reason if record.error is None else record.error.message
    raise ApiProblem(
        409,
        "no-result",
        f"{record.job_id} is {record.status} and has no result: {why}",
        remedy="GET its receipt." if record.is_final else "Wait until it has finished: ?wait=30.",
    )


@get(
    "/v1/jobs/{job_id:str}/output",
    operation_id="getOutput",
    summary="A job's output",
    guards=[requires("view")],
    responses=problems(404, 409),
)
async def get_output(
    app_state: AppStateDependency,
    job_id: JobPart,
    after: Annotated[
        str | None,
        Parameter(pattern="^[0-9]{1,15}-[0-9]{1,15}$", description="`next` of the previous page."),
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="Maximum number of chunks.")] = 500,
) -> OutputPage:
    """Return a page of the output."""
    return await sync_to_thread(_output, app_state, job_id, after, limit)


def _output(app_state: AppState, part: str, after: str | None, limit: int) -> OutputPage:
    # The state is read before the output: if it is final, all output has been written.
    job = find(app_state.read_bridge, part)
    record = job.record()
    chunks = [] if job.source is Source.SPOOL else list(islice(job.output(after=after or "-"), limit))
    final = record.is_final and len(chunks) < limit
    last = chunks[-1].entry_id if chunks else after
    return OutputPage(job_id=record.job_id, chunks=chunks, next=None if final else last, final=final)


ROUTES: list[Any] = [create_job, get_job, get_receipt, get_result, get_output]
