"""Webhooks: a signed request from elsewhere becomes a ``rest.request`` job.

The signature is GitHub's: ``X-Hub-Signature-256: sha256=HEX``, HMAC-SHA256 of the body. A sender that also
sends ``X-Hub-Timestamp`` (seconds since 1970) signs ``TIMESTAMP.BODY`` and is refused when it is too old. The
delivery id (``X-GitHub-Delivery`` or ``X-Delivery-Id``) is the idempotency key. It is not signed: the same
signature under another delivery id is a replay and refused.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import unauthorized
from ingress.core.http.problems import ApiProblem
from ingress.core.webhook_signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature_of
from ingress.rest.contract import BODY, problems, require_json
from ingress.rest.jobs import accept
from middleware.job.records import Receipt
from middleware.job.schema import make_job
from middleware.job.types import RestRequestPayload
from ops.errors import StoreUnreachable
from ops.logs import get_logger
from ops.settings.rest import EndpointSettings

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_DELIVERY = re.compile(r"[!-~]{1,128}")
#: Headers that say what kind of event it is, and nothing secret; the rest stays here.
_PASSED_ON = re.compile(
    r"content-type|user-agent|x-(github|gitlab|gitea|hub)-(event|delivery|hook-id)|x-event.*"
)
_QUERY_MAX = 100

#: The body, for the OpenAPI document: its signature is of the bytes, so it is read before it is understood.
BODIES: dict[str, Any] = {
    "webhook": {
        "required": False,
        "content": {
            "application/json": {"schema": {"description": "What the endpoint takes its parts from."}}
        },
    }
}

_HOW_TO_SIGN = (
    f"Send '{SIGNATURE_HEADER}: sha256=HMAC' of the body, keyed with the endpoint's secret;"
    f" with {TIMESTAMP_HEADER}, of TIMESTAMP.BODY."
)

log = get_logger(__name__)


def endpoint_secret(endpoint: EndpointSettings) -> bytes:
    """Give what signs an endpoint's webhooks; empty if it takes none."""
    named = os.environ.get(endpoint.secret_env, "") if endpoint.secret_env else ""
    return (endpoint.secret if endpoint.secret else named).encode()


def check_signature(
    endpoint: EndpointSettings | None, headers: dict[str, str], body: bytes, *, age_max_s: float
) -> str:
    """See whether a webhook is what it says.

    Args:
        endpoint: Of its name; None if there is none, which is answered as a wrong signature is.
        headers: Names in lower case.
        body: As it came.
        age_max_s: How far off its timestamp may be.

    Returns:
        The signature.

    Raises:
        ApiProblem: It is not signed rightly, or not of this time.
    """
    secret = b"" if endpoint is None else endpoint_secret(endpoint)
    given = _SIGNATURE.fullmatch(headers.get(SIGNATURE_HEADER.lower(), ""))
    timestamp = headers.get(TIMESTAMP_HEADER.lower(), "")
    right = signature_of(secret, body, timestamp)
    fits = hmac.compare_digest(right, given[1].lower() if given is not None else "")
    if endpoint is None or not secret or not fits:
        raise unauthorized("the webhook is not signed as its endpoint wants.", _HOW_TO_SIGN)
    if not timestamp and endpoint.require_timestamp:
        raise unauthorized(f"the webhook has no {TIMESTAMP_HEADER}.", _HOW_TO_SIGN)
    if timestamp and not (
        timestamp.isascii() and timestamp.isdecimal() and abs(time.time() - int(timestamp[:18])) <= age_max_s
    ):
        raise unauthorized(f"the webhook's {TIMESTAMP_HEADER} is not of this time.", _HOW_TO_SIGN)
    return right


def refuse_replay(app_state: AppState, name: str, signature: str, delivery: str) -> None:
    """Refuse what was signed once and comes again under another delivery id; blocks.

    While the store is away nobody can tell; the delivery id still counts then.

    Raises:
        ApiProblem: It is one.
    """
    keys = app_state.read_bridge.reader.keys
    away = app_state.acceptance.away
    if away.is_set():
        log.warning("rest.replay_unchecked", endpoint=name, reason="the store is away.")
        return
    try:
        # Briefly: somebody waits. Given up and written all the same, it is what this delivery writes again.
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
            "this signed body has come before under another delivery id.",
            remedy=f"Send {TIMESTAMP_HEADER} and sign it too, or set allow_repeats for the endpoint.",
        )


def _read_body(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiProblem(
            400, "invalid-request", f"the body is no valid JSON: {error}.", remedy="Send JSON."
        ) from error


@post(
    "/v1/hooks/{name:str}",
    status_code=202,
    operation_id="webhook",
    summary="A signed webhook",
    description="Becomes a `rest.request` job of the endpoint of this name. Signed as GitHub does; no token.",
    responses=problems(409, *BODY),
)
async def webhook(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    name: Annotated[str, Parameter(description="Of [rest.endpoints.NAME].")],
) -> Response[Receipt]:
    """Take a webhook."""
    body = await request.body()
    headers = {key.lower(): value for key, value in request.headers.items()}
    endpoint = app_state.rest.endpoints.get(name)
    signature = check_signature(endpoint, headers, body, age_max_s=app_state.rest.webhook_age_max_s)
    require_json(request)
    given = headers.get("x-github-delivery", headers.get("x-delivery-id", ""))
    delivery = given if _DELIVERY.fullmatch(given) else signature
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
