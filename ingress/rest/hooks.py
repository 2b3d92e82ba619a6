"""Webhooks: a signed request becomes a ``rest.request`` job.

The signature is GitHub's: ``X-Hub-Signature-256: sha256=HEX``, HMAC-SHA256 of the body. A sender that also
sends ``X-Hub-Timestamp`` (seconds since 1970) signs ``TIMESTAMP.BODY`` and is refused if it is too old. The
delivery id (``X-GitHub-Delivery`` or ``X-Delivery-Id``) is the idempotency key. It is not signed: the same
signature with another delivery id is refused as a replay.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter

from actors.job_types.rest_request import RestRequestPayload
from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import unauthorized
from ingress.core.http.problems import ApiProblem
from ingress.core.webhook_signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature_of
from ingress.rest.contract import BODY, problems, require_json
from ingress.rest.jobs import accept
from middleware.job.records import Receipt
from middleware.job.schema import JOB_TYPES, make_job
from ops.environment import variable
from ops.errors import InvalidJob, StoreUnreachable
from ops.logs import get_logger
from ops.settings.rest import EndpointSettings

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_DELIVERY = re.compile(r"[!-~]{1,128}")
#: Headers passed on to the job: they describe the event and hold no secrets.
_PASSED_ON = re.compile(
    r"content-type|user-agent|x-(github|gitlab|gitea|hub)-(event|delivery|hook-id)|x-event.*"
)
_QUERY_MAX = 100

#: The body, for the OpenAPI document: it is read as bytes, because the signature covers them.
BODIES: dict[str, Any] = {
    "webhook": {
        "required": False,
        "content": {
            "application/json": {"schema": {"description": "Source of the fields of the endpoint's payload."}}
        },
    }
}

_HOW_TO_SIGN = (
    f"Send '{SIGNATURE_HEADER}: sha256=HMAC' of the body, keyed with the endpoint's secret;"
    f" with {TIMESTAMP_HEADER}, of TIMESTAMP.BODY."
)

log = get_logger(__name__)


def endpoint_secret(endpoint: EndpointSettings) -> bytes:
    """Return the secret of an endpoint; empty if the endpoint accepts no webhooks."""
    named = variable(endpoint.secret_env) if endpoint.secret_env else ""
    return (endpoint.secret if endpoint.secret else named).encode()


def check_signature(
    endpoint: EndpointSettings | None, headers: dict[str, str], body: bytes, *, age_max_s: float
) -> str:
    """Check the signature of a webhook.

    Args:
        endpoint: The endpoint; None for an unknown one, which is answered like a wrong signature.
        headers: Names in lower case.
        body: Body of the request.
        age_max_s: Maximum difference between its timestamp and the present time.

    Returns:
        The signature.

    Raises:
        ApiProblem: The signature is wrong, or the timestamp is missing or too old.
    """
    secret = b"" if endpoint is None else endpoint_secret(endpoint)
    given = _SIGNATURE.fullmatch(headers.get(SIGNATURE_HEADER.lower(), ""))
    timestamp = headers.get(TIMESTAMP_HEADER.lower(), "")
    expected = signature_of(secret, body, timestamp)
    matches = hmac.compare_digest(expected, given[1].lower() if given is not None else "")
    if endpoint is None or not secret or not matches:
        raise unauthorized("The webhook has no valid signature of its endpoint.", _HOW_TO_SIGN)
    if not timestamp and endpoint.require_timestamp:
        raise unauthorized(f"The webhook lacks the header {TIMESTAMP_HEADER}.", _HOW_TO_SIGN)
    if timestamp and not (
        timestamp.isascii() and timestamp.isdecimal() and abs(time.time() - int(timestamp[:18])) <= age_max_s
    ):
        raise unauthorized(
            f"The webhook's {TIMESTAMP_HEADER} is not valid or too far from the present time.", _HOW_TO_SIGN
        )
    return expected


def refuse_replay(app_state: AppState, name: str, signature: str, delivery: str) -> None:
    """Refuse a signed body that was delivered before with another delivery id; blocks on the store.

    While the store is unavailable this is not checked; the delivery id still makes the job unique.

    Raises:
        ApiProblem: The request is a replay.
    """
    keys = app_state.read_bridge.reader.keys
    away = app_state.acceptance.store_unavailable
    if away.is_set():
        log.warning("rest.replay_unchecked", endpoint=name, reason="the store is unavailable.")
        return
    try:
        # With the short time-out. If the write succeeds after it, a repeat of this delivery writes the same.
        first = app_state.read_bridge.store.call(
            "SET",
            keys.webhook(name, signature),
            delivery,
            "NX",
            "GET",
            "EX",
            app_state.loaded.settings.idempotency_ttl_s,
        )
    except StoreUnreachable as error:
        away.set()
        log.warning("rest.replay_unchecked", endpoint=name, reason=str(error))
        return
    if first is not None and first.decode(errors="replace") != delivery:
        raise ApiProblem(
            409,
            "replay",
            "This signed body was delivered before with another delivery id.",
            remedy=f"Send {TIMESTAMP_HEADER} and sign it, or set allow_repeats for the endpoint.",
        )


def require_type(app_state: AppState, name: str, job_type: str) -> None:
    """Check that the job type of an endpoint is known; blocks on the store for one that is not built in.

    While the store is unavailable and no type has been read yet, this is left to ``rest.request``.

    Raises:
        ApiProblem: It is unknown; names the nearest one.
    """
    try:
        app_state.read_bridge.admission.types.require(job_type, field=f"rest.endpoints.{name}.job")
    except InvalidJob as error:
        log.warning("rest.unknown_type", endpoint=name, job_type=job_type, reason=error.message)
        raise ApiProblem(
            409, "unknown-type", error.message, remedy=error.remedy, field=error.field
        ) from error
    except StoreUnreachable as error:
        log.warning("rest.type_unchecked", endpoint=name, job_type=job_type, reason=str(error))


def _read_body(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiProblem(
            400, "invalid-request", f"The body is not valid JSON: {error}.", remedy="Send JSON."
        ) from error


@post(
    "/v1/hooks/{name:str}",
    status_code=202,
    operation_id="webhook",
    summary="A signed webhook",
    description="Becomes a `rest.request` job of this endpoint. Signed as GitHub does; needs no token.",
    responses=problems(409, *BODY),
)
async def webhook(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    name: Annotated[str, Parameter(description="NAME of a section [rest.endpoints.NAME].")],
) -> Response[Receipt]:
    """Accept a webhook."""
    body = await request.body()
    headers = {key.lower(): value for key, value in request.headers.items()}
    endpoint = app_state.rest.endpoints.get(name)
    signature = check_signature(endpoint, headers, body, age_max_s=app_state.rest.webhook_age_max_s)
    require_json(request)
    sent_id = headers.get("x-github-delivery", headers.get("x-delivery-id", ""))
    delivery = sent_id if _DELIVERY.fullmatch(sent_id) else signature
    if endpoint is not None and endpoint.job not in JOB_TYPES:
        await sync_to_thread(require_type, app_state, name, endpoint.job)
    if endpoint is not None and not endpoint.allow_repeats:
        await sync_to_thread(refuse_replay, app_state, name, signature, delivery)
    query = dict(list(request.query_params.items())[:_QUERY_MAX])
    payload = RestRequestPayload(
        endpoint=name,
        body=_read_body(body),
        headers={key: value for key, value in headers.items() if _PASSED_ON.fullmatch(key)},
        query={key: str(value) for key, value in query.items()},
    )
    job = make_job(
        "rest.request",
        payload,
        source="webhook",
        actor=f"webhook:{name}",
        trust="member",
        idempotency_key=f"hook:{name}:{delivery}",
    )
    return await sync_to_thread(accept, app_state, job)


ROUTES: list[Any] = [webhook]
