"""A line of the ledger: one transition of one job, chained to the line before and signed.

Canonical JSON: keys sorted, no spaces, UTF-8. The signature is over the line without its field ``sig``, the
hash ``prev`` over the whole line before, its end of line excluded.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from ops.signing import Signer

VERSION = 1
#: ``prev`` of the first line.
NO_LINE = "0" * 64

_canonical = msgspec.json.Encoder(order="sorted")


class JobFacts(Struct, frozen=True, kw_only=True):
    """What a job is; part of the first of its lines.

    Attributes:
        job_type: Name of its type.
        source: The interface that it was submitted through.
        actor: Who submitted it.
        trust: How far the interface trusts the actor.
        project: Its project.
        trace_id: Its trace; None if that is its own id.
    """

    job_type: str = ""
    source: str = "python"
    actor: str = ""
    trust: str = "operator"
    project: str | None = None
    trace_id: str | None = None


class LedgerLine(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of the ledger.

    Attributes:
        v: Version of the format.
        ledger: Name of the ledger; each workspace has one.
        seq: Number of the line, from 1, without gaps over all days.
        prev: SHA-256 of the line before.
        key: Name of the signing key.
        sealed_at: When it was written, UTC.
        job_id: The job whose transition it is.
        index: Position of the transition in the job's receipt chain, from 0.
        entry: The transition as in the receipt chain: ``at`` (ms since 1970), ``status``, ``attempt``, ...
        job: What the job is; with index 0.
        after_loss: It replaces transitions that are sealed but that the store has lost.
        sig: Ed25519 signature, base64.
    """

    v: int
    ledger: str
    seq: int
    prev: str
    key: str
    sealed_at: str
    job_id: str
    index: int
    entry: dict[str, Any]
    job: JobFacts | None = None
    after_loss: bool = False
    sig: str = ""


_decoder = msgspec.json.Decoder(LedgerLine)


def canonical(value: object) -> bytes:
    """Return a value as canonical JSON."""
    return _canonical.encode(value)


def line_hash(line: bytes) -> str:
    """Return the SHA-256 of a line, which is passed without its line end."""
    return hashlib.sha256(line).hexdigest()


def read_line(data: bytes) -> LedgerLine:
    """Return the decoded line.

    Raises:
        msgspec.MsgspecError: It is not a line of a ledger.
    """
    return _decoder.decode(data)


def sign_line(line: LedgerLine, signer: Signer) -> bytes:
    """Return the encoded line, signed."""
    signature = signer.sign(signed_part(line))
    return canonical(msgspec.structs.replace(line, sig=signature))


def signed_part(line: LedgerLine) -> bytes:
    """Return the part of a line that is signed."""
    return canonical(msgspec.structs.replace(line, sig=""))
