"""Signatures of incoming webhooks: one preset for each kind of sender.

A preset knows in which headers a sender puts the signature, the kind of event and the id of the delivery:

github     X-Hub-Signature-256: sha256=HEX of the body; X-GitHub-Event, X-GitHub-Delivery. Other senders
           may send X-Hub-Timestamp (seconds since 1970) and sign TIMESTAMP.BODY; X-Event, X-Delivery-Id
gitlab     X-Gitlab-Token: the secret itself; X-Gitlab-Event, Idempotency-Key or X-Gitlab-Event-UUID
gitea      X-Gitea-Signature: HEX of the body; X-Gitea-Event, X-Gitea-Delivery. Also Forgejo and Gogs
stripe     Stripe-Signature: t=TIMESTAMP,v1=HEX of TIMESTAMP.BODY; type and id are in the body
standard   Standard Webhooks 1.0: webhook-signature: v1,BASE64 of ID.TIMESTAMP.BODY; webhook-id,
           webhook-timestamp; the event is ``type`` in the body. ``whsec_`` secrets are Base64
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SIGNATURE_HEADER = "X-Hub-Signature-256"
TIMESTAMP_HEADER = "X-Hub-Timestamp"
_HEX = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})")
#: Signatures of one request that are compared: a sender that changes its secret sends one for each.
_SIGNATURES_MAX = 8
_ENCODED_SECRET = "whsec_"  # noqa: S105 (a prefix)


class SignedContent(NamedTuple):
    """What a request claims in its headers, to be compared with the secret.

    Attributes:
        genuine: Whether one of its signatures is right; it may still be too old.
        timestamp: Signed time of the request as the sender wrote it; empty if the scheme has none.
        signature: Identifies the signed content; empty if nothing is signed but the sender.
    """

    genuine: bool
    timestamp: str = ""
    signature: str = ""


class Preset(NamedTuple):
    """How one kind of sender makes webhooks; header names in lower case.

    Attributes:
        check: Takes secret, headers and body.
        events: Headers with the kind of event, in order of precedence.
        deliveries: Headers with the id of the delivery, in order of precedence.
        body_event: Field of the body with the kind of event, if no header has it.
        body_delivery: Field of the body with the id of the delivery.
        signs_delivery: Whether the id of the delivery is part of what is signed.
        needs_timestamp: Whether every request has a timestamp.
        how_to_sign: Remedy for a request without a valid signature.
    """

    check: Callable[[bytes, Mapping[str, str], bytes], SignedContent]
    events: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    body_event: str = ""
    body_delivery: str = ""
    signs_delivery: bool = False
    needs_timestamp: bool = False
    how_to_sign: str = ""

    def event_of(self, headers: Mapping[str, str], body: Any) -> str:
        """Return the kind of event, such as ``push``; an empty text if the request does not name it."""
        return _first(headers, self.events) or _field(body, self.body_event)

    def delivery_of(self, headers: Mapping[str, str], body: Any) -> str:
        """Return the id of the delivery; an empty text if the request has none."""
        return _first(headers, self.deliveries) or _field(body, self.body_delivery)


def signature_of(secret: bytes, body: bytes, timestamp: str = "") -> str:
    """Return the signature of a webhook in hexadecimal, as GitHub and Stripe compute it.

    Args:
        secret: Shared secret of the endpoint.
        body: Request body, exactly as sent.
        timestamp: Signed time of the request; empty if it has none.
    """
    signed = f"{timestamp}.".encode() + body if timestamp else body
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()


def is_recent(timestamp: str, age_max_s: float) -> bool:
    """Return whether a timestamp is valid and near enough to the present time, in both directions.

    Args:
        timestamp: Seconds since 1970.
        age_max_s: Maximum difference, in seconds.
    """
    valid = timestamp.isascii() and timestamp.isdecimal()
    return valid and abs(time.time() - int(timestamp[:18])) <= age_max_s


def event_matches(event: str, wanted: str) -> bool:
    """Return whether an event is of a kind that an endpoint names: ``push`` is GitLab's ``Push Hook``."""
    return _plain(event) == _plain(wanted)


def _plain(event: str) -> str:
    return event.lower().removesuffix(" hook").replace(" ", "_").strip()


def _github(secret: bytes, headers: Mapping[str, str], body: bytes) -> SignedContent:
    timestamp = headers.get(TIMESTAMP_HEADER.lower(), "")
    return _hmac(secret, headers.get(SIGNATURE_HEADER.lower(), ""), body, timestamp)


def _gitea(secret: bytes, headers: Mapping[str, str], body: bytes) -> SignedContent:
    given = _first(headers, ("x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"))
    return _hmac(secret, given or headers.get(SIGNATURE_HEADER.lower(), ""), body)


def _hmac(secret: bytes, given: str, body: bytes, timestamp: str = "") -> SignedContent:
    expected = signature_of(secret, body, timestamp)
    found = _HEX.fullmatch(given.strip())
    genuine = hmac.compare_digest(expected, found[1].lower() if found is not None else "")
    return SignedContent(genuine, timestamp, expected)


def _gitlab(secret: bytes, headers: Mapping[str, str], _body: bytes) -> SignedContent:
    return SignedContent(hmac.compare_digest(secret, headers.get("x-gitlab-token", "").encode()))


def _stripe(secret: bytes, headers: Mapping[str, str], body: bytes) -> SignedContent:
    parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    timestamp = next((value for name, _, value in parts if name == "t"), "")
    expected = signature_of(secret, body, timestamp)
    given = [value for name, _, value in parts if name == "v1"][:_SIGNATURES_MAX]
    genuine = [hmac.compare_digest(expected.encode(), value.lower().encode()) for value in given]
    return SignedContent(timestamp != "" and any(genuine), timestamp, expected)


def _standard(secret: bytes, headers: Mapping[str, str], body: bytes) -> SignedContent:
    delivery, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signed = f"{delivery}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(_decoded(secret), signed, hashlib.sha256).digest()).decode()
    given = [part.partition(",") for part in headers.get("webhook-signature", "").split()]
    matches = [
        hmac.compare_digest(expected.encode(), value.encode())
        for version, _, value in given[:_SIGNATURES_MAX]
        if version == "v1"
    ]
    return SignedContent(bool(delivery and timestamp) and any(matches), timestamp, expected)


def _decoded(secret: bytes) -> bytes:
    if not secret.startswith(_ENCODED_SECRET.encode()):
        return secret
    try:
        return base64.b64decode(secret.removeprefix(_ENCODED_SECRET.encode()), validate=True)
    except binascii.Error:
        return secret


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((headers[name] for name in names if headers.get(name)), "")


def _field(body: Any, name: str) -> str:
    value = body.get(name, "") if isinstance(body, dict) and name else ""
    return value if isinstance(value, str) else ""


PRESETS: dict[str, Preset] = {
    "github": Preset(
        _github,
        events=("x-github-event", "x-event"),
        deliveries=("x-github-delivery", "x-delivery-id"),
        how_to_sign=f"Send '{SIGNATURE_HEADER}: sha256=HMAC' of the body, keyed with the endpoint's secret;"
        f" with {TIMESTAMP_HEADER}, of TIMESTAMP.BODY.",
    ),
    "gitlab": Preset(
        _gitlab,
        events=("x-gitlab-event",),
        deliveries=("idempotency-key", "x-gitlab-event-uuid"),
        body_event="object_kind",
        how_to_sign="Set the endpoint's secret as the secret token of the webhook in GitLab.",
    ),
    "gitea": Preset(
        _gitea,
        events=("x-gitea-event", "x-forgejo-event", "x-gogs-event", "x-github-event"),
        deliveries=("x-gitea-delivery", "x-forgejo-delivery", "x-gogs-delivery", "x-github-delivery"),
        how_to_sign="Set the endpoint's secret as the secret of the webhook in Gitea.",
    ),
    "stripe": Preset(
        _stripe,
        body_event="type",
        body_delivery="id",
        signs_delivery=True,
        needs_timestamp=True,
        how_to_sign="Set the endpoint's secret to the signing secret (whsec_...) that Stripe shows.",
    ),
    "standard": Preset(
        _standard,
        deliveries=("webhook-id",),
        body_event="type",
        signs_delivery=True,
        needs_timestamp=True,
        how_to_sign="Send webhook-id, webhook-timestamp, and 'webhook-signature: v1,BASE64' of"
        " ID.TIMESTAMP.BODY.",
    ),
}
