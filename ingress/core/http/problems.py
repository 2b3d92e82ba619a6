"""Every error as a problem document (RFC 9457): what happened, and what to do about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from msgspec import Struct

from ops.errors import (
    AmbiguousJobId,
    BridgeError,
    InvalidJob,
    JobNotFound,
    PolicyDenied,
    QueueFull,
    SessionNotFound,
    SpoolFull,
    StoreError,
    StoreUnreachable,
    UnknownProject,
    UsageProblem,
    WaitTimeout,
    WrongState,
)
from ops.logs import get_logger

MEDIA_TYPE = "application/problem+json"
#: When to come back while the store is away, or the queue full.
RETRY_AFTER_S = 2
#: What a parameter is called in a request, where a function calls it otherwise.
_SENT_NAMES = {
    ("query", "job_type"): "type",
    ("query", "every"): "all",
    ("query", "with_output"): "output",
    ("header", "idempotency_key"): "Idempotency-Key",
    ("header", "last_event_id"): "Last-Event-ID",
}

log = get_logger(__name__)


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong.

    Attributes:
        type: Which kind of problem; a name, not an address.
        title: The status in words.
        status: The HTTP status.
        detail: What happened, one sentence.
        remedy: What to do about it.
        field: Dotted name of the field at fault.
    """

    type: str
    title: str
    status: int
    detail: str
    remedy: str = ""
    field: str = ""


class ApiProblem(Exception):
    """A request that is answered with a problem document.

    Args:
        status: The HTTP status.
        kind: Which kind of problem: ``not-acceptable-here``, for instance.
        message: What happened, one sentence.
        remedy: What to do about it.
        field: Dotted name of the field at fault.
        headers: To be sent along.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        remedy: str = "",
        field: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = {} if headers is None else headers
        self.problem = Problem(
            type=f"urn:3ox:{kind}",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=message,
            remedy=remedy,
            field=field,
        )


#: Which of our errors is answered how; the first that fits counts. 400 is for requests that no bridge could
#: take, 409 for those that this one cannot take as it stands.
_STATUSES: tuple[tuple[type[BridgeError], int, str], ...] = (
    (PolicyDenied, 403, "denied"),
    (JobNotFound, 404, "job-not-found"),
    (SessionNotFound, 404, "session-not-found"),
    (AmbiguousJobId, 409, "ambiguous-id"),
    (WrongState, 409, "wrong-state"),
    (UnknownProject, 409, "unknown-project"),
    (InvalidJob, 400, "invalid-job"),
    (UsageProblem, 400, "invalid-request"),
    (WaitTimeout, 408, "wait-timeout"),
    (QueueFull, 503, "queue-full"),
    (SpoolFull, 503, "spool-full"),
    (StoreUnreachable, 503, "store-away"),
    (StoreError, 503, "store-refuses"),
)


def of_bridge_error(error: BridgeError) -> ApiProblem:
    """Turn one of our errors into a problem."""
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            later = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
            return ApiProblem(
                status,
                name,
                error.message,
                remedy=error.remedy,
                field=getattr(error, "field", ""),
                headers=later,
            )
    log.error("rest.failed", reason=str(error))
    return ApiProblem(500, "failed", error.message, remedy=error.remedy)


def refused(error: InvalidJob) -> ApiProblem:
    """Turn the refusal of a well-formed job into a problem: this bridge cannot take it as it stands."""
    if error.field == "payload":
        return ApiProblem(413, "payload-too-large", error.message, remedy=error.remedy, field=error.field)
    return ApiProblem(409, "job-refused", error.message, remedy=error.remedy, field=error.field)


def answer(problem: ApiProblem) -> Response[bytes]:
    """Make the response."""
    return Response(
        encode(problem),
        status_code=problem.problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def encode(problem: ApiProblem) -> bytes:
    """Write the document."""
    return msgspec.json.encode(problem.problem)


def on_problem(_: Request[Any, Any, Any], error: ApiProblem) -> Response[bytes]:
    """Answer a problem."""
    return answer(error)


def on_bridge_error(_: Request[Any, Any, Any], error: BridgeError) -> Response[bytes]:
    """Answer one of our errors."""
    return answer(of_bridge_error(error))


def on_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the framework raises: no such route or method, a parameter that does not fit."""
    return answer(of_http_exception(error))


def of_http_exception(error: HTTPException) -> ApiProblem:
    """Turn what the framework raises into a problem."""
    status = error.status_code
    headers = {} if error.headers is None else dict(error.headers)
    if isinstance(error, ValidationException):
        message, field = _complaint(error)
        return ApiProblem(
            status, "invalid-request", message, remedy="Correct the value.", field=field, headers=headers
        )
    remedies = {
        404: "GET /schema/openapi.json lists all routes.",
        405: f"Use one of: {headers.get('allow', '')}.",
        413: "Send less, or raise [rest] body_max_bytes or upload_max_bytes in 3ox.toml.",
    }
    phrase = HTTPStatus(status).phrase
    kind = phrase.lower().replace(" ", "-")
    said = {
        404: "there is no such route.",
        405: "the route does not take this method.",
        413: "the body is larger than is taken.",
    }
    message = said.get(status, error.detail if error.detail else f"{phrase}.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("rest.failed", reason=error.detail)
    return ApiProblem(status, kind, message, remedy=remedies.get(status, ""), headers=headers)


def _complaint(error: ValidationException) -> tuple[str, str]:
    """Give what is wrong, and with which field."""
    for entry in error.extra if isinstance(error.extra, list) else ():
        if isinstance(entry, dict) and "message" in entry:
            source = getattr(entry.get("source"), "value", "request")
            field = str(entry.get("key", ""))
            field = _SENT_NAMES.get((source, field), field)
            where = f"the {source} parameter {field!r}" if field else "the request"
            if field == "data":
                return "the request has no body.", ""
            return f"{where} is not valid: {entry['message']}.", field
    return f"the request is not valid: {error.detail}", ""


def on_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a fault of ours without showing its inside, and write it down."""
    if isinstance(error, RecursionError):
        # A body whose lists stand in lists by the thousand; nothing of ours goes so deep.
        return answer(
            ApiProblem(413, "payload-too-large", "the body is nested too deep.", remedy="Send it as text.")
        )
    log.error("rest.fault", path=request.url.path, method=request.method, exc_info=error)
    return answer(ApiProblem(500, "fault", "the bridge made a mistake.", remedy="3ox.log says more."))
