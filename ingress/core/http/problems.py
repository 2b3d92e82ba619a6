"""Problem documents (RFC 9457): each error with what happened and what to do about it."""

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
#: Value of Retry-After while the store is unavailable or the queue is full.
RETRY_AFTER_S = 2
#: Names of parameters in a request that differ from those in the handler.
_SENT_NAMES = {
    ("query", "job_type"): "type",
    ("query", "every"): "all",
    ("query", "with_output"): "output",
    ("header", "idempotency_key"): "Idempotency-Key",
    ("header", "last_event_id"): "Last-Event-ID",
}

log = get_logger(__name__)


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error.

    Attributes:
        type: Kind of the problem: a URN, not an address.
        title: Phrase of the HTTP status.
        status: HTTP status.
        detail: What happened, in one sentence.
        remedy: What to do about it.
        field: Dotted name of the field that is not valid.
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
        status: HTTP status.
        kind: Kind of the problem, for instance ``job-not-found``.
        message: What happened, in one sentence.
        remedy: What to do about it.
        field: Dotted name of the field that is not valid.
        headers: Further headers of the response.
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


#: Status and kind of the problem for each error; the first match counts. 400: no bridge could accept the
#: request; 409: this bridge cannot accept it in its present state.
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
    """Return the problem for an error of the bridge."""
    for kind, status, name in _STATUSES:
        if isinstance(error, kind):
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
            return ApiProblem(
                status,
                name,
                error.message,
                remedy=error.remedy,
                field=getattr(error, "field", ""),
                headers=headers,
            )
    log.error("rest.failed", reason=str(error))
    return ApiProblem(500, "failed", error.message, remedy=error.remedy)


def refused(error: InvalidJob) -> ApiProblem:
    """Return the problem for a well-formed job that this bridge does not accept."""
    if error.field == "payload":
        return ApiProblem(413, "payload-too-large", error.message, remedy=error.remedy, field=error.field)
    return ApiProblem(409, "job-refused", error.message, remedy=error.remedy, field=error.field)


def answer(problem: ApiProblem) -> Response[bytes]:
    """Return the response with the problem document."""
    return Response(
        encode(problem),
        status_code=problem.problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def encode(problem: ApiProblem) -> bytes:
    """Return the problem document as JSON."""
    return msgspec.json.encode(problem.problem)


def on_problem(_: Request[Any, Any, Any], error: ApiProblem) -> Response[bytes]:
    """Return the response for a problem."""
    return answer(error)


def on_bridge_error(_: Request[Any, Any, Any], error: BridgeError) -> Response[bytes]:
    """Return the response for an error of the bridge."""
    return answer(of_bridge_error(error))


def on_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Return the response for an error of the framework: unknown route or method, parameter not valid."""
    return answer(of_http_exception(error))


def of_http_exception(error: HTTPException) -> ApiProblem:
    """Return the problem for an error of the framework."""
    status = error.status_code
    headers = {} if error.headers is None else dict(error.headers)
    if isinstance(error, ValidationException):
        message, field = _invalid_parameter(error)
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
    messages = {
        404: "This route does not exist.",
        405: "The route does not support this method.",
        413: "The body is too large.",
    }
    message = messages.get(status, error.detail if error.detail else f"{phrase}.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("rest.failed", reason=error.detail)
    return ApiProblem(status, kind, message, remedy=remedies.get(status, ""), headers=headers)


def _invalid_parameter(error: ValidationException) -> tuple[str, str]:
    """Return what is wrong, and the name of the parameter."""
    for entry in error.extra if isinstance(error.extra, list) else ():
        if isinstance(entry, dict) and "message" in entry:
            source = getattr(entry.get("source"), "value", "request")
            field = str(entry.get("key", ""))
            field = _SENT_NAMES.get((source, field), field)
            where = f"The {source} parameter {field!r}" if field else "The request"
            if field == "data":
                return "The request has no body.", ""
            return f"{where} is not valid: {entry['message']}.", field
    return f"The request is not valid: {error.detail}", ""


def on_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Log an unexpected exception and return a response that does not show it."""
    if isinstance(error, RecursionError):
        # A body with thousands of nested lists; the product itself never recurses that deep.
        return answer(
            ApiProblem(413, "payload-too-large", "The body is nested too deeply.", remedy="Send it as text.")
        )
    log.error("rest.fault", path=request.url.path, method=request.method, exc_info=error)
    return answer(ApiProblem(500, "fault", "Internal error.", remedy="See 3ox.log."))
