"""Webhooks: the job and its receipt as JSON, signed as in the Standard Webhooks specification, version 1.

webhook-id          id of the delivery, the same in every attempt: a receiver that knows it answers 200
webhook-timestamp   seconds since 1970
webhook-signature   v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from urllib.parse import urlsplit

from actors.egress.http_post import post, require_success
from actors.egress.outcome import Delivered, Outcome, as_json
from ops.environment import variable
from ops.errors import JobRefused
from ops.settings.load import LoadedSettings
from ops.settings.results import WebhookSettings

#: Prefix of a secret in Base64.
_ENCODED = "whsec_"


def deliver(outcome: Outcome, loaded: LoadedSettings, which: str) -> Delivered:
    """Post the job to a webhook of 3ox.toml.

    Args:
        outcome: The finished job.
        loaded: Settings.
        which: Name of the webhook.

    Raises:
        JobFailed: It was not accepted now; worth a retry.
        JobRefused: The webhook is not configured, or will never accept the job.
    """
    hook = next((item for item in loaded.settings.webhook if item.name == which), None)
    if hook is None:
        raise JobRefused(f"The webhook {which!r} is not in 3ox.toml.", remedy="Add it again as [[webhook]].")
    body = as_json(outcome)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "cmd-bridge",
        "webhook-id": outcome.delivery_id,
        "webhook-timestamp": str(int(time.time())),
    }
    secret = secret_of(hook)
    if secret is not None:
        headers["webhook-signature"] = sign(secret, outcome.delivery_id, headers["webhook-timestamp"], body)
    host = str(urlsplit(hook.url).hostname)
    require_success(post(hook.url, body, headers, timeout_s=hook.timeout_s), f"webhook {which} ({host})")
    return Delivered(sink=f"webhook:{which}", place=host)


def secret_of(hook: WebhookSettings) -> bytes | None:
    """Return the secret that signs a webhook's requests, or None if they are not signed.

    Raises:
        JobRefused: Its environment variable is not set, or what follows ``whsec_`` is not Base64.
    """
    if not hook.secret_env:
        return None
    text = variable(hook.secret_env)
    if not text:
        raise JobRefused(
            f"The secret of webhook {hook.name!r} is missing: {hook.secret_env} is not set.",
            remedy="Set it in the environment of the workers.",
        )
    if not text.startswith(_ENCODED):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_ENCODED), validate=True)
    except ValueError as error:  # of which binascii.Error is one
        raise JobRefused(
            f"The secret of webhook {hook.name!r} is not valid Base64 after {_ENCODED}.",
            remedy=f"Copy it again into {hook.secret_env}.",
        ) from error


def sign(secret: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a request.

    Args:
        secret: Secret shared with the receiver.
        delivery_id: Value of the header ``webhook-id``.
        timestamp: Value of the header ``webhook-timestamp``.
        body: Request body.
    """
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
