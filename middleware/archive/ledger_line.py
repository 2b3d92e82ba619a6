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
#: ``prev`` of the very first line.
NO_LINE = "0" * 64

_canonical = msgspec.json.Encoder(order="sorted")


class JobFacts(Struct, frozen=True, kw_only=True):
    """What a job is, on the first of its lines.

    Attributes:
        job_type: Its type.
        source: The door it came through.
        actor: Who commanded it.
        trust: How much the door knows of who that is.
        project: Its project.
        trace_id: The command that it belongs to; None: its own.
    """

    job_type: str = ""
    source: str = "python"
    actor: str = ""
    trust: str = "operator"
    project: str | None = None
    trace_id: str | None = None


class LedgerLine(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line.

    Attributes:
        v: Version of this form.
        ledger: Which ledger; one for each workspace.
        seq: Number of the line, from 1, without gaps over all days.
        prev: SHA-256 of the line before.
        key: Name of the signing key.
        sealed_at: When it was written, UTC.
        job_id: Whose transition.
        index: Its place in the job's receipt chain, from 0.
        entry: The transition as in the receipt chain: ``at`` (ms since 1970), ``status``, ``attempt``, ...
        job: What the job is; with index 0.
        after_loss: The store had lost transitions that are sealed already; this is what took their place.
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
    """Write a value as canonical JSON."""
    return _canonical.encode(value)


def line_hash(line: bytes) -> str:
    """Give the SHA-256 of a line, without its end of line."""
    return hashlib.sha256(line).hexdigest()


def read_line(data: bytes) -> LedgerLine:
    """Read a line.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    return _decoder.decode(data)


def sign_line(line: LedgerLine, signer: Signer) -> bytes:
    """Write a line, signed."""
    signature = signer.sign(signed_part(line))
    return canonical(msgspec.structs.replace(line, sig=signature))


def signed_part(line: LedgerLine) -> bytes:
    """Give what the signature is over."""
    return canonical(msgspec.structs.replace(line, sig=""))
