"""Webhooks: a signed request becomes a ``rest.request`` job.

The preset of the endpoint (``ingress.core.webhook_signature``) says where the sender puts signature, kind of
event and delivery id. A delivery counts as seen when its job is accepted, in the same step of the store: its
keys are the idempotency keys of the job. The first is the delivery id; where the sender does not sign that,
the second is the signature, so that the same signed body under another delivery id is refused as a replay.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

import msgspec
from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter

from actors.job_types.rest_request import RestRequestPayload
from actors.request_template import fill, null_parts
from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import unauthorized
from ingress.core.http.problems import ApiProblem, refused
from ingress.core.webhook_signature import (
    PRESETS,
    TIMESTAMP_HEADER,
    Preset,
    SignedContent,
    event_matches,
    is_recent,
)
from ingress.rest.contract import BODY, is_json, problems
from middleware.job.base import KEY_SEPARATOR
from middleware.job.records import Receipt
from middleware.job.schema import JOB_TYPES, Job, make_job
from ops.environment import normalized, variable
from ops.errors import InvalidJob, JobNotFound, JobRefused, StoreUnreachable
from ops.logs import get_logger
from ops.settings.rest import EndpointSettings

_DELIVERY = re.compile(r"[!-~]{1,128}")
#: Headers passed on to the job: they describe the event and hold no secrets.
_PASSED_ON = re.compile(
    r"content-type|user-agent|x-(github|gitlab|gitea|forgejo|gogs|hub)-(event|delivery|hook-id)|x-event.*"
    r"|x-gitlab-event-uuid|webhook-(id|timestamp)"
)
_QUERY_MAX = 100
_FORM = "application/x-www-form-urlencoded"
_FORM_FIELDS_MAX = 1000

#: The body, for the OpenAPI document: it is read as bytes, because the signature covers them.
BODIES: dict[str, Any] = {
    "webhook": {
        "required": False,
        "content": {
            "application/json": {"schema": {"description": "Source of the fields of the endpoint's payload."}}
        },
    }
}

log = get_logger(__name__)


class IgnoredWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine webhook that creates no job.

    Attributes:
        status: Always ``ignored``.
        event: Kind of event, as the sender names it.
        reason: Why it creates none.
    """

    status: Literal["ignored"] = "ignored"
    event: str
    reason: str


def endpoint_secret(endpoint: EndpointSettings) -> bytes:
    """Return the secret of an endpoint; empty if the endpoint accepts no webhooks."""
    named = variable(endpoint.secret_env) if endpoint.secret_env else ""
    given = normalized(endpoint.secret)
    return (given if given else named).encode()


def check_signature(
    endpoint: EndpointSettings | None, headers: dict[str, str], body: bytes, *, age_max_s: float
) -> tuple[Preset, SignedContent]:
    """Check the signature of a webhook; return its preset and what is signed.

    Args:
        endpoint: The endpoint; None for an unknown one, which is answered like a wrong signature.
        headers: Names in lower case.
        body: Body of the request.
        age_max_s: Maximum difference between its timestamp and the present time.

    Raises:
        ApiProblem: The signature is wrong, or the timestamp is missing or too old.
    """
    preset = PRESETS["github" if endpoint is None else endpoint.preset]
    secret = b"" if endpoint is None else endpoint_secret(endpoint)
    claim = preset.check(secret, headers, body)
    if endpoint is None or not secret or not claim.genuine:
        raise unauthorized("The webhook has no valid signature of its endpoint.", preset.how_to_sign)
    if not claim.timestamp and (endpoint.require_timestamp or preset.needs_timestamp):
        raise unauthorized(f"The webhook lacks the header {TIMESTAMP_HEADER}.", preset.how_to_sign)
    if claim.timestamp and not is_recent(claim.timestamp, age_max_s):
        raise unauthorized(
            "The timestamp of the webhook is not valid or too far from the present time.", preset.how_to_sign
        )
    return preset, claim


def idempotency_keys(
    name: str, preset: Preset, claim: SignedContent, *, delivery: str, body: bytes, allow_repeats: bool
) -> str:
    """Return the keys that make a delivery unique, joined by ``KEY_SEPARATOR``.

    Args:
        name: Name of the endpoint.
        preset: Its kind of sender.
        claim: What is signed.
        delivery: Id of the delivery; any text.
        body: Body of the request.
        allow_repeats: Whether the same signed body may come again under another id.
    """
    content = claim.signature if claim.signature else hashlib.sha256(body).hexdigest()
    known = _DELIVERY.fullmatch(delivery) is not None
    keys = [f"hook:{name}:{delivery if known else content}"]
    if known and claim.signature and not preset.signs_delivery and not allow_repeats:
        keys.append(f"hooked:{hashlib.sha256(f'{name}:{content}'.encode()).hexdigest()[:32]}")
    return KEY_SEPARATOR.join(keys)


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


def read_body(content_type: str, body: bytes) -> Any:
    """Return the document in a body: JSON, the JSON in the field ``payload`` of a form, or a form's fields.

    Args:
        content_type: Its media type, without parameters.
        body: The body; may begin with a byte order mark.

    Raises:
        ApiProblem: The body is neither, or not valid.
    """
    if content_type == _FORM:
        try:
            fields = parse_qs(
                body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FORM_FIELDS_MAX
            )
        except ValueError as error:
            raise _invalid(f"The form is not valid: {error}.", "Send URL-encoded UTF-8.") from error
        if "payload" not in fields:
            return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
        return _json(fields["payload"][0].encode())
    if not is_json(content_type):
        raise ApiProblem(
            415,
            "media-type",
            f"The body is declared as {content_type!r}.",
            remedy=f"Send 'Content-Type: application/json' or {_FORM} with a field 'payload'.",
        )
    return _json(body)


def _json(text: bytes) -> Any:
    document = text.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(document) if document.strip() else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _invalid(f"The body is not valid JSON: {error}.", "Send JSON.") from error


def _invalid(message: str, remedy: str) -> ApiProblem:
    return ApiProblem(400, "invalid-request", message, remedy=remedy)


def reason_to_ignore(endpoint: EndpointSettings, event: str, request: RestRequestPayload) -> str:
    """Return why a request creates no job; an empty text if it does.

    Args:
        endpoint: The endpoint.
        event: Kind of event; empty if the request does not name it.
        request: The request.
    """
    if endpoint.events:
        if not any(event_matches(event, wanted) for wanted in endpoint.events):
            return f"The endpoint takes the events {', '.join(endpoint.events)}."
    elif event == "ping":
        return "A ping only tests the connection."
    template = [endpoint.payload, endpoint.session_id]
    nulls = list(null_parts(template, request))
    if not nulls or _fits(endpoint, request):
        return ""
    return f"The request says null for {', '.join(nulls)}, which has no default."


def _fits(endpoint: EndpointSettings, request: RestRequestPayload) -> bool:
    """Return whether the job of an endpoint can be made from a request, as far as this process knows."""
    try:
        payload = fill(endpoint.payload, request)
        session = None if endpoint.session_id is None else fill(endpoint.session_id, request)
        if endpoint.job in JOB_TYPES:
            make_job(endpoint.job, payload, session_id=session)
    except (JobRefused, InvalidJob):
        return False
    return True


def accept_webhook(app_state: AppState, job: Job) -> Response[Receipt | IgnoredWebhook]:
    """Accept the job of a webhook: 202 for a new delivery, 200 for one that was accepted before.

    Raises:
        ApiProblem: The bridge does not accept the job; the delivery id belongs to another body; or the body
            was delivered before with another id.
    """
    try:
        receipt = app_state.acceptance.accept(job)
    except InvalidJob as error:
        raise refused(error) from error
    if receipt.duplicate:
        _require_same(app_state, job, receipt)
    return Response(
        receipt,
        status_code=200 if receipt.duplicate else 202,
        headers={"Location": f"/v1/jobs/{receipt.job_id}"},
    )


def _require_same(app_state: AppState, job: Job, receipt: Receipt) -> None:
    try:
        first = app_state.read_bridge.reader.job(receipt.job_id)
    except (StoreUnreachable, JobNotFound):
        # Accepted while the store was unavailable: the spool compares the keys.
        return
    ours, known = (str(keys).split(KEY_SEPARATOR)[0] for keys in (job.idempotency_key, first.idempotency_key))
    if ours != known:
        raise ApiProblem(
            409,
            "replay",
            "This signed body was delivered before with another delivery id.",
            remedy=f"Send {TIMESTAMP_HEADER} and sign it, or set allow_repeats for the endpoint.",
        )
    payload = first.payload if isinstance(first.payload, dict) else {}
    if payload.get("body") != msgspec.to_builtins(job.payload.body):
        raise ApiProblem(
            409,
            "idempotency-key",
            f"This delivery id belongs to another request, job {receipt.job_id}.",
            remedy="Use a new delivery id for each delivery.",
        )


@post(
    "/v1/hooks/{name:str}",
    status_code=202,
    operation_id="webhook",
    summary="A signed webhook",
    description="Becomes a `rest.request` job of this endpoint. Signed as its preset says; needs no token."
    " 200 for a delivery that was accepted before, and without a job for a ping and for an event that the"
    " endpoint does not take.",
    responses={
        200: ResponseSpec(
            Receipt | IgnoredWebhook,
            generate_examples=False,
            description="The delivery was accepted before, or creates no job.",
        ),
        **problems(409, *BODY),
    },
)
async def webhook(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    name: Annotated[str, Parameter(description="NAME of a section [rest.endpoints.NAME].")],
) -> Response[Receipt | IgnoredWebhook]:
    """Accept a webhook."""
    body = await request.body()
    headers = {key.lower(): value for key, value in request.headers.items()}
    endpoint = app_state.rest.endpoints.get(name)
    preset, claim = check_signature(endpoint, headers, body, age_max_s=app_state.rest.webhook_age_max_s)
    if endpoint is None:  # check_signature has refused it
        raise unauthorized("The webhook has no valid signature of its endpoint.", preset.how_to_sign)
    document = read_body(request.content_type[0].lower(), body)
    query = dict(list(request.query_params.items())[:_QUERY_MAX])
    payload = RestRequestPayload(
        endpoint=name,
        body=document,
        headers={key: value for key, value in headers.items() if _PASSED_ON.fullmatch(key)},
        query={key: str(value) for key, value in query.items()},
    )
    event = preset.event_of(headers, document)
    reason = reason_to_ignore(endpoint, event, payload)
    if reason:
        log.info("rest.webhook_ignored", endpoint=name, webhook_event=event[:100], reason=reason)
        return Response(IgnoredWebhook(event=event[:100], reason=reason), status_code=200)
    if endpoint.job not in JOB_TYPES:
        await sync_to_thread(require_type, app_state, name, endpoint.job)
    delivery = preset.delivery_of(headers, document)
    job = make_job(
        "rest.request",
        payload,
        source="webhook",
        actor=f"webhook:{name}",
        trust="member",
        idempotency_key=idempotency_keys(
            name, preset, claim, delivery=delivery, body=body, allow_repeats=endpoint.allow_repeats
        ),
    )
    return await sync_to_thread(accept_webhook, app_state, job)


ROUTES: list[Any] = [webhook]
