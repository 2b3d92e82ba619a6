"""Webhooks: the job and its receipt as JSON, signed after the Standard Webhooks specification (version 1).

webhook-id          the delivery's id, the same in every attempt: a receiver that has seen it answers 200
webhook-timestamp   seconds since 1970
webhook-signature   v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from urllib.parse import urlsplit

from actors.egress.http_post import post, require_taken
from actors.egress.outcome import Delivered, Outcome, as_json
from ops.errors import JobRefused
from ops.settings.load import LoadedSettings
from ops.settings.results import WebhookSettings

#: Before a secret that is written in Base64.
_ENCODED = "whsec_"


def deliver(outcome: Outcome, loaded: LoadedSettings, which: str) -> Delivered:
    """Post the job to a webhook of 3ox.toml.

    Args:
        outcome: The job.
        loaded: The settings.
        which: Name of the webhook.

    Raises:
        JobFailed: It was not taken now; worth another attempt.
        JobRefused: The webhook is not configured (any more), or will never take it.
    """
    hook = next((item for item in loaded.settings.webhook if item.name == which), None)
    if hook is None:
        raise JobRefused(f"there is no webhook {which!r} in 3ox.toml.", remedy="Add it as [[webhook]] again.")
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
    require_taken(post(hook.url, body, headers, timeout_s=hook.timeout_s), f"webhook {which} ({host})")
    return Delivered(sink=f"webhook:{which}", place=host)


def secret_of(hook: WebhookSettings) -> bytes | None:
    """Give the secret that signs a webhook's requests, None if they are unsigned.

    Raises:
        JobRefused: The variable that should hold it is not set, or holds no Base64 after ``whsec_``.
    """
    if not hook.secret_env:
        return None
    text = os.environ.get(hook.secret_env, "")
    if not text:
        raise JobRefused(
            f"the secret of webhook {hook.name} is missing: {hook.secret_env} is not set.",
            remedy="Set it in the environment of the workers.",
        )
    if not text.startswith(_ENCODED):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_ENCODED), validate=True)
    except ValueError as error:  # of which binascii.Error is one
        raise JobRefused(
            f"the secret of webhook {hook.name} is no Base64 after {_ENCODED}.", remedy="Copy it again."
        ) from error


def sign(secret: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    """Give the signature of a request.

    Args:
        secret: Shared with the receiver.
        delivery_id: As in the header ``webhook-id``.
        timestamp: As in the header ``webhook-timestamp``.
        body: What is sent.
    """
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
