"""Signatures of incoming webhooks, as GitHub makes them: HMAC-SHA256 of the body in a header."""

from __future__ import annotations

import hashlib
import hmac

SIGNATURE_HEADER = "X-Hub-Signature-256"
TIMESTAMP_HEADER = "X-Hub-Timestamp"


def signature_of(secret: bytes, body: bytes, timestamp: str = "") -> str:
    """Return the signature of a webhook in hexadecimal.

    Args:
        secret: Shared secret of the endpoint.
        body: Request body, exactly as sent.
        timestamp: Value of ``X-Hub-Timestamp``; empty if the request has none.
    """
    signed = f"{timestamp}.".encode() + body if timestamp else body
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()
