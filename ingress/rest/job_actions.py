"""Routes for actions on jobs: cancel, retry, approve, deny."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.params import JSONBody

from ingress.core import control
from ingress.core.bridge import Bridge
from ingress.core.control import CancelReply
from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import principal_of, requires
from ingress.core.http.problems import ApiProblem
from ingress.rest.contract import BODY, JobPart, problems
from ingress.rest.job_queries import find_id, find_job
from ingress.rest.models import Decision
from middleware.broker.approvals import APPROVED
from middleware.job.records import JobRecord, Receipt
from ops.tokens import Principal, Scope


def _action(name: str, summary: str, *, scope: Scope, status_code: int = 200, description: str = "") -> post:
    """Return the route decorator of an action on a job; the body can give a reason."""
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


@_action(
    "cancel",
    "Cancel a job",
    description="Takes effect at once before the job starts, through its worker while it runs. A finished job"
    " does not change.",
    scope="submit",
)
async def cancel_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> CancelReply:
    """Cancel a job."""
    full_id = await sync_to_thread(find_id, app_state, job_id)
    return await sync_to_thread(
        control.cancel, app_state.bridge, full_id, _reason_text("cancelled", request, data)
    )


@_action(
    "retry",
    "Run a failed or cancelled job again",
    description="Needs the scope admin for commands and tasks with operator trust, and for approved jobs.",
    scope="submit",
    status_code=202,
)
async def retry_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Response[Receipt]:
    """Retry a job."""
    record = await sync_to_thread(find_job, app_state, job_id)
    runs_programs = await sync_to_thread(app_state.read_bridge.admission.types.runs_programs, record.job_type)
    _require_may_retry(principal_of(request), record, runs_programs=runs_programs)
    receipt = await sync_to_thread(
        control.retry, app_state.bridge, record.job_id, _reason_text("retried", request, data)
    )
    return Response(receipt, status_code=202, headers={"Location": f"/v1/jobs/{receipt.job_id}"})


def _require_may_retry(principal: Principal, record: JobRecord, *, runs_programs: bool) -> None:
    """Check that the caller may retry a job: it needs the permission that submitting the job would need.

    Raises:
        ApiProblem: The job has operator trust, or one run of it was approved; the caller is not an admin.
    """
    if principal.may("admin"):
        return
    why = ""
    if runs_programs and record.trust == "operator":
        why = f"it is a {record.job_type} job from {record.source}"
    elif record.approval == APPROVED:
        why = "it was approved for one run"
    if why:
        raise ApiProblem(
            403,
            "scope",
            f"A retry of {record.job_id} needs the scope admin: {why}.",
            remedy="Submit a new job, or use a token made with: 3ox token make NAME --scope admin.",
        )


@_action("approve", "Approve a held job", scope="admin")
async def approve_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Receipt:
    """Approve a held job."""
    return await _decide(control.approve, app_state, job_id, request, data)


@_action("deny", "Deny a held job, which cancels it", scope="admin")
async def deny_job(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    job_id: JobPart,
    data: JSONBody[Decision | None] = None,
) -> Receipt:
    """Deny a held job."""
    return await _decide(control.deny, app_state, job_id, request, data)


async def _decide(
    decide: Callable[[Bridge, str, str, str], Receipt],
    app_state: AppState,
    part: str,
    request: Request[Any, Any, Any],
    data: Decision | None,
) -> Receipt:
    full_id = await sync_to_thread(find_id, app_state, part)
    return await sync_to_thread(decide, app_state.bridge, full_id, _actor(request), _reason(data))


def _actor(request: Request[Any, Any, Any]) -> str:
    return f"rest:{principal_of(request).name}"


def _reason(data: Decision | None) -> str:
    return "" if data is None else data.reason


def _reason_text(action: str, request: Request[Any, Any, Any], data: Decision | None) -> str:
    text = f"{action} by {_actor(request)}"
    reason = _reason(data)
    return f"{text}: {reason}" if reason else text


#: Optional bodies, for the OpenAPI document.
_REASON = {
    "required": False,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Decision"}}},
}
BODIES: dict[str, Any] = dict.fromkeys(("cancelJob", "retryJob", "approveJob", "denyJob"), _REASON)
ROUTES: list[Any] = [cancel_job, retry_job, approve_job, deny_job]
