"""Jobs: take one, list them, one in full, its parts, and what can be done to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, Parameter

from ingress.core import control
from ingress.core.bridge import Bridge
from ingress.core.control import CancelReply
from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import principal_of, requires
from ingress.core.http.problems import ApiProblem, refused
from ingress.core.lookup import Source, find
from ingress.rest.contract import BODY, problems
from ingress.rest.job_queries import encoded_job, find_id, find_job, wait_for_end
from ingress.rest.listing import list_jobs
from ingress.rest.models import KEY_MAX, AnyJobRequest, Decision, JobResult, OutputPage
from middleware.broker.approvals import APPROVED
from middleware.job.reader import LIMIT_MAX
from middleware.job.receipt import payload_sha256
from middleware.job.records import JobRecord, Receipt
from middleware.job.schema import JOB_TYPES, Job, make_job
from middleware.job.states import State
from ops.errors import InvalidJob
from ops.tokens import Principal, Scope
from ops.trace_ids import traceparent

_DAY_S = 86_400
#: Before the keys of clients, so that they cannot be those of another door.
KEY_PREFIX = "rest:"

JobPart = Annotated[str, Parameter(description="The job's id, or a prefix or suffix that only one has.")]
Wait = Annotated[
    float,
    Parameter(ge=0, le=_DAY_S, description="Wait so many seconds for its end, at most wait_max_s."),
]


def to_job(wanted: AnyJobRequest, principal: Principal, key: str | None, *, trace: str | None = None) -> Job:
    """Build the job that a request asks for.

    Args:
        wanted: What the caller says.
        principal: Who the caller is.
        key: Idempotency key of the header.
        trace: Trace id if the body names none; from the header traceparent.

    Raises:
        ApiProblem: Header and body name different keys.
        InvalidJob: It does not fit.
    """
    if key is not None and wanted.idempotency_key not in {None, key}:
        raise ApiProblem(
            409,
            "idempotency-key",
            "the header and the body name different idempotency keys.",
            remedy="Send one of them.",
            field="idempotency_key",
        )
    chosen = wanted.idempotency_key if key is None else key
    return make_job(
        str(wanted.__struct_config__.tag),
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
    """Take a job in and answer with its receipt: 202 for a new one, 200 for one that had been taken before.

    Raises:
        ApiProblem: The bridge cannot take it, or its key stands for another command.
    """
    try:
        receipt = app_state.acceptance.accept(job, delay_s=delay_s)
    except InvalidJob as error:
        raise refused(error) from error
    if receipt.duplicate and not _is_same(receipt, job):
        raise ApiProblem(
            409,
            "idempotency-key",
            f"this idempotency key stands for another command, {receipt.job_id}.",
            remedy="Use a new key for a new command.",
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
    summary="Take a job",
    description="202 with the receipt of a new job (status 'spooled' while the store is away), 200 with that"
    " of the job for which the Idempotency-Key stands already.",
    guards=[requires("submit")],
    opt={"body": AnyJobRequest},
    responses={
        200: ResponseSpec(Receipt, generate_examples=False, description="It had been taken before."),
        **problems(409, *BODY),
    },
)
async def create_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    data: JSONBody[AnyJobRequest],
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            min_length=1,
            max_length=KEY_MAX,
            pattern="^[!-~]+$",
            description="The same key again is answered with the same job.",
        ),
    ] = None,
) -> Response[Receipt]:
    """Take a job."""
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
    """Give how long to wait.

    Raises:
        ApiProblem: It is no number of seconds.
    """
    if not math.isfinite(wait):
        raise ApiProblem(
            400, "invalid-request", "wait is no number of seconds.", remedy="Send one.", field="wait"
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
    """Give the receipt."""
    return await sync_to_thread(lambda: find(app_state.read_bridge, job_id).receipt())


@get(
    "/v1/jobs/{job_id:str}/result",
    operation_id="getResult",
    summary="What a completed job came to",
    description="409 while it has not ended, and for one that failed or was cancelled.",
    guards=[requires("view")],
    responses=problems(404, 409),
)
async def get_result(app_state: AppStateDependency, job_id: JobPart, wait: Wait = 0.0) -> JobResult:
    """Give the result."""
    record = await wait_for_end(app_state, job_id, seconds(wait))
    if record.status == State.COMPLETED:
        return JobResult(job_id=record.job_id, status=record.status, result=record.result)
    why = record.reason if record.error is None else record.error.message
    raise ApiProblem(
        409,
        "no-result",
        f"{record.job_id} is {record.status} and has no result: {why}",
        remedy="GET its receipt." if record.is_final else "Wait for its end: ?wait=30.",
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
        Parameter(pattern="^[0-9]{1,15}-[0-9]{1,15}$", description="`next` of the page before."),
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="How many pieces.")] = 500,
) -> OutputPage:
    """Give pieces of the output."""
    return await sync_to_thread(_output, app_state, job_id, after, limit)


def _output(app_state: AppState, part: str, after: str | None, limit: int) -> OutputPage:
    # The state before the output: what is written up to the end is then read too.
    job = find(app_state.read_bridge, part)
    record = job.record()
    chunks = [] if job.source is Source.SPOOL else list(islice(job.output(after=after or "-"), limit))
    final = record.is_final and len(chunks) < limit
    last = chunks[-1].entry_id if chunks else after
    return OutputPage(job_id=record.job_id, chunks=chunks, next=None if final else last, final=final)


def _act(name: str, summary: str, *, scope: Scope, status_code: int = 200, description: str = "") -> post:
    """Make the route of something that is done to a job, for a reason that may be given."""
    return post(
        f"/v1/jobs/{{job_id:str}}/{name}",
        status_code=status_code,
        operation_id=f"{name}Job",
        summary=summary,
        description=description if description else None,
        guards=[requires(scope)],
        opt={"body": Decision},
        responses=problems(404, 409, *BODY),
    )


@_act(
    "cancel",
    "Cancel a job",
    description="At once before it starts, through its worker while it runs; one that has ended stays so.",
    scope="submit",
)
async def cancel_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> CancelReply:
    """Cancel a job."""
    whole = await sync_to_thread(find_id, app_state, job_id)
    return await sync_to_thread(control.cancel, app_state.bridge, whole, _said("cancelled", request, data))


@_act(
    "retry",
    "Run a failed or cancelled job again",
    description="A command or task of somebody with a login, and what was approved, with scope admin only.",
    scope="submit",
    status_code=202,
)
async def retry_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Response[Receipt]:
    """Run a job again."""
    record = await sync_to_thread(find_job, app_state, job_id)
    _require_may_retry(principal_of(request), record)
    receipt = await sync_to_thread(
        control.retry, app_state.bridge, record.job_id, _said("retried", request, data)
    )
    return Response(receipt, status_code=202, headers={"Location": f"/v1/jobs/{receipt.job_id}"})


def _require_may_retry(principal: Principal, record: JobRecord) -> None:
    """Let nobody run by a retry what they could not have dispatched.

    Raises:
        ApiProblem: The job runs with the rights of a login, or somebody has approved one run of it.
    """
    if principal.may("admin"):
        return
    why = ""
    if JOB_TYPES.runs_programs(record.job_type) and record.trust == "operator":
        why = f"it is a {record.job_type} of {record.source}"
    elif record.approval == APPROVED:
        why = "it was approved for one run"
    if why:
        raise ApiProblem(
            403,
            "scope",
            f"{record.job_id} is retried with the scope admin only: {why}.",
            remedy="Dispatch it anew, or use a token made with: 3ox token make NAME --scope admin.",
        )


@_act("approve", "Let a job go on that waits for approval", scope="admin")
async def approve_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Receipt:
    """Let a job go on."""
    return await _decide(control.approve, app_state, job_id, request, data)


@_act("deny", "Cancel a job that waits for approval", scope="admin")
async def deny_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Receipt:
    """Cancel a job that waits."""
    return await _decide(control.deny, app_state, job_id, request, data)


async def _decide(
    decide: Callable[[Bridge, str, str, str], Receipt],
    app_state: AppState,
    part: str,
    request: Request[Any, Any, Any],
    data: Decision | None,
) -> Receipt:
    whole = await sync_to_thread(find_id, app_state, part)
    return await sync_to_thread(decide, app_state.bridge, whole, _actor(request), _reason(data))


def _actor(request: Request[Any, Any, Any]) -> str:
    return f"rest:{principal_of(request).name}"


def _reason(data: Decision | None) -> str:
    return "" if data is None else data.reason


def _said(what: str, request: Request[Any, Any, Any], data: Decision | None) -> str:
    said = f"{what} by {_actor(request)}"
    reason = _reason(data)
    return f"{said}: {reason}" if reason else said


#: Bodies that may be left out, for the OpenAPI document.
_REASON = {
    "required": False,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Decision"}}},
}
BODIES: dict[str, Any] = dict.fromkeys(("cancelJob", "retryJob", "approveJob", "denyJob"), _REASON)
ROUTES: list[Any] = [
    create_job,
    list_jobs,
    get_job,
    get_receipt,
    get_result,
    get_output,
    cancel_job,
    retry_job,
    approve_job,
    deny_job,
]
