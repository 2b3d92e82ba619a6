"""Prove one job's receipt by its lines in the ledger, with the public keys only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from middleware.archive.ledger import LINE_MAX_BYTES, day_files
from middleware.archive.ledger_line import LedgerLine, canonical, read_line, signed_part
from middleware.job.records import Receipt, Transition
from middleware.job.states import State
from ops.signing import KeyRing

#: A transition to one of these states does not end an attempt.
_NOT_AN_END = frozenset({State.PROCESSING, State.QUEUED})


class Seal(Struct, frozen=True):
    """One sealed transition.

    Attributes:
        file: Name of the ledger's file.
        raw: The line as signed.
        line: The decoded line.
    """

    file: str
    raw: bytes
    line: LedgerLine


class Proof(Struct, frozen=True, kw_only=True):
    """Result of comparing a job's receipt with the ledger.

    Attributes:
        job_id: Id of the job.
        ok: Whether every transition is sealed as the receipt has it.
        sealed: Number of sealed transitions.
        transitions: Number of transitions in the receipt.
        faults: What is wrong.
        keys: Names of the keys that signed.
        first: File and number of the first line; empty if none is sealed.
        last: File and number of the last line.
    """

    job_id: str
    ok: bool
    sealed: int
    transitions: int
    faults: list[str]
    keys: list[str]
    first: str = ""
    last: str = ""


def seals_of(folder: Path, job_id: str, *, since_ms: int = 0) -> list[Seal]:
    """Return the sealed lines of a job, in order.

    Args:
        folder: Folder of the ledger.
        job_id: The whole id.
        since_ms: When the job was created; earlier days are not read.
    """
    first_day = f"{datetime.fromtimestamp(since_ms / 1000, UTC):%Y-%m-%d}"
    wanted = f'"job_id":"{job_id}"'.encode()
    found: list[Seal] = []
    for file in day_files(folder):
        if file.stem < first_day:
            continue
        with file.open("rb") as source:
            while raw := source.readline(LINE_MAX_BYTES):
                if wanted not in raw or not raw.endswith(b"\n"):
                    continue
                try:
                    line = read_line(raw)
                except msgspec.MsgspecError:
                    # ``3ox verify`` of the whole ledger reports it; it proves nothing about this job.
                    continue
                if line.job_id == job_id:
                    found.append(Seal(file.name, raw[:-1], line))
    return found


def prove(job_id: str, chain: Sequence[bytes], seals: Sequence[Seal], keys: KeyRing) -> Proof:
    """Compare a job's receipt chain with its sealed lines.

    Args:
        job_id: Id of the job.
        chain: The lines of its receipt chain, as the store has them.
        seals: Its sealed lines, from ``seals_of``.
        keys: The keys whose signatures are valid.
    """
    return _prove(job_id, [msgspec.json.decode(raw) for raw in chain], seals, keys)


def prove_archived(receipt: Receipt, seals: Sequence[Seal], keys: KeyRing) -> Proof:
    """Compare a receipt from the history with the sealed lines of its job.

    Args:
        receipt: The receipt; of all hashes it has only those of input and result.
        seals: The sealed lines, from ``seals_of``.
        keys: The keys whose signatures are valid.
    """
    known = {"at", "status", "attempt", "worker", "reason"}
    comparable = [
        Seal(seal.file, seal.raw, msgspec.structs.replace(seal.line, entry=_only(seal.line.entry, known)))
        for seal in seals
    ]
    proof = _prove(receipt.job_id, [_entry(item) for item in receipt.transitions], comparable, keys)
    hashes = [seal.line.entry for seal in sorted(seals, key=lambda seal: (seal.line.index, seal.line.seq))]
    input_sha256 = next((entry["input_sha256"] for entry in hashes if "input_sha256" in entry), "")
    ends = [entry for entry in hashes if entry.get("attempt") and entry["status"] not in _NOT_AN_END]
    result_sha256 = ends[-1].get("result_sha256") if ends else None
    faults = [
        f"the sealed hash of the {name} is different"
        for name, claimed, sealed in (
            ("input", receipt.input_sha256, input_sha256),
            ("result", receipt.result_sha256, result_sha256),
        )
        if claimed != sealed
    ]
    if not receipt.transitions:
        faults.append("the receipt has no transitions")
    if not faults:
        return proof
    return msgspec.structs.replace(proof, ok=False, faults=[*proof.faults, *faults])


def _only(entry: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name in names}


def _entry(item: Transition) -> dict[str, Any]:
    """Return a transition as its line of the receipt chain, without hashes."""
    at_ms = round(datetime.fromisoformat(item.at).timestamp() * 1000)
    rest = {"attempt": item.attempt, "worker": item.worker_id, "reason": item.reason}
    return {"at": at_ms, "status": item.status, **{name: value for name, value in rest.items() if value}}


def _prove(job_id: str, chain: Sequence[Any], seals: Sequence[Seal], keys: KeyRing) -> Proof:
    faults: list[str] = []
    # If a transition is sealed twice, because the store had lost it, the later line counts.
    by_index = {seal.line.index: seal for seal in seals}
    for seal in seals:
        line = read_line(seal.raw)
        signed = keys.verify(line.key, line.sig, signed_part(line)) and canonical(line) == seal.raw
        if not signed:
            faults.append(f"line {line.seq} of the ledger is not signed with a key of this ledger")
    sealed = 0
    for index, entry in enumerate(chain):
        found = by_index.get(index)
        if found is None:
            continue
        sealed += 1
        if canonical(found.line.entry) != canonical(entry):
            faults.append(f"transition {index} differs from line {found.line.seq} of the ledger")
    if sealed < len(chain):
        faults.append(f"{len(chain) - sealed} of {len(chain)} transitions are not sealed")
    return Proof(
        job_id=job_id,
        ok=not faults,
        sealed=sealed,
        transitions=len(chain),
        faults=faults,
        keys=sorted({seal.line.key for seal in seals}),
        first=_place(seals[0]) if seals else "",
        last=_place(seals[-1]) if seals else "",
    )


def _place(seal: Seal) -> str:
    return f"{seal.file} number {seal.line.seq}"
