"""Verification: every change of the ledger is found, and a receipt is proven by its lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.core import control
from ingress.core.ledger_proofs import seals, verify_receipt
from ingress.dispatch import Bridge, dispatch
from middleware.archive.ledger import Ledger, UnsealedTransition
from middleware.archive.ledger_line import canonical, read_line, signed_part
from middleware.archive.proof import prove_archived
from ops.signing import KeyRing
from tests.archive.conftest import Scribe
from tests.archive.lives import some_jobs


def swapped(lines: list[bytes]) -> list[bytes]:
    """Return the lines with two of them swapped."""
    return [*lines[:2], lines[3], lines[2], *lines[4:]]


def altered(lines: list[bytes]) -> list[bytes]:
    """Return the lines with one letter of a reason changed."""
    at = next(number for number, raw in enumerate(lines) if b"not needed" in raw)
    return [*lines[:at], lines[at].replace(b"not needed", b"not Needed"), *lines[at + 1 :]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (altered, None),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:2], lines[0], *lines[2:]], 3),
        (lambda lines: [*lines[:2], b'{"v":1}\n', *lines[2:]], 3),
        (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3),
        (swapped, 3),
        (lambda lines: lines[:-1], 7),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"{", b"{ ", 1)], 8),
    ],
    ids=["byte", "removed", "first", "twice", "inserted", "empty", "swapped", "end", "space"],
)
def test_a_change_is_found_and_its_line_is_named(
    own: Bridge, scribe: Scribe, change: Callable[[list[bytes]], list[bytes]], line: int | None
) -> None:
    """The first bad line is named; if the end was cut off, the store knows of it."""
    some_jobs(own, 5)
    scribe.seal()
    lines = scribe.file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    scribe.file.write_bytes(b"".join(change(lines)))
    if line is None:
        line = next(number for number, raw in enumerate(lines, start=1) if b"not needed" in raw)
    verdict = scribe.verify()
    assert not verdict.ok
    assert verdict.fault is not None
    assert (verdict.fault.file, verdict.fault.line) == (scribe.file.name, line), verdict.fault


def test_any_byte_that_is_changed_is_found(own: Bridge, scribe: Scribe) -> None:
    """Every eleventh byte of a few lines, each alone, and the first and last ones."""
    some_jobs(own, 2)
    scribe.seal()
    whole = scribe.file.read_bytes()
    for place in {*range(0, len(whole), 11), *range(len(whole) - 3, len(whole))}:
        scribe.file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        verdict = scribe.verify()
        noted = any("half written" in text for text in verdict.notes)
        assert not verdict.ok or (place == len(whole) - 1 and noted), place
    scribe.file.write_bytes(whole)
    assert scribe.verify().ok


def test_a_line_that_another_key_signed_is_found(own: Bridge, scribe: Scribe, tmp_path: Path) -> None:
    """The line is well-formed and chained, but the key is not one of this ledger."""
    some_jobs(own)
    scribe.seal()
    forger = Ledger(scribe.folder, KeyRing(tmp_path / "keys"))
    with forger.writing(timeout_s=1.0):
        forger.append(
            [UnsealedTransition(job_id="0" * 20, index=0, entry={"at": 1, "status": "queued"})],
            now_s=scribe.now_s,
        )
    fault = scribe.verify().fault
    assert fault is not None
    assert fault.line == 6
    assert "not signed with a key of this ledger: unknown key" in fault.message


@pytest.mark.parametrize("removed", [False, True], ids=["emptied", "removed"])
def test_a_ledger_without_a_line_does_not_hold_if_there_were_some(
    own: Bridge, scribe: Scribe, *, removed: bool
) -> None:
    """An empty ledger is valid only if nothing was sealed."""
    assert scribe.verify().ok
    some_jobs(own)
    scribe.seal()
    if removed:
        scribe.file.unlink()
    else:
        scribe.file.write_bytes(b"")
    fault = scribe.verify().fault
    assert fault is not None
    assert fault.message == "it is empty, but lines were sealed: the ledger was emptied or removed."


def test_lines_that_are_gone_leave_a_gap_for_ever(own: Bridge, scribe: Scribe) -> None:
    """A ledger restored from an old copy continues with the number in the store, which leaves a gap."""
    some_jobs(own)
    scribe.seal()
    old = scribe.file.read_bytes()
    some_jobs(own)
    scribe.seal()
    scribe.file.write_bytes(old)
    some_jobs(own)
    scribe.successor("heir").seal()
    fault = scribe.verify().fault
    assert fault is not None
    assert (fault.line, fault.message) == (6, "it has number 11 after 5: lines are missing, added or moved.")


def test_a_transition_that_the_ledger_was_never_given_is_found(own: Bridge, scribe: Scribe) -> None:
    """The store has more transitions than the ledger, and no mark for them."""
    jobs = some_jobs(own)
    scribe.seal()
    control.cancel(own, jobs[1], "unseen")
    own.store.call("SREM", scribe.key("unsealed"), jobs[1])
    fault = scribe.verify().fault
    assert fault is not None
    assert fault.message == f"job {jobs[1]}: 1 of its 2 transitions were never sealed."
    assert not verify_receipt(own, jobs[1]).ok


def test_jobs_that_another_host_sealed_are_no_gap_here(own: Bridge, scribe: Scribe, tmp_path: Path) -> None:
    """Two ledgers at one store: each is valid by itself, without the other's lines."""
    jobs = some_jobs(own)
    scribe.seal()
    there = scribe.successor("other host")
    there.ledger.folder = tmp_path / "ledger"
    control.cancel(own, jobs[1], "sealed there")
    some_jobs(own)
    there.seal()
    assert own.store.call("HGET", own.reader.keys.job(jobs[1]), "ledger").count(b",") == 1
    here = there.successor("back")
    dispatch("heartbeat", {})
    here.seal()
    verdict = scribe.verify()
    assert verdict.ok, verdict.fault
    assert len({line.ledger for line in scribe.lines()}) == 1


def test_a_receipt_is_proven_by_its_lines(own: Bridge, scribe: Scribe) -> None:
    """And fails if it differs from the sealed lines."""
    jobs = some_jobs(own)
    scribe.seal()
    proof = verify_receipt(own, jobs[0])
    assert (proof.ok, proof.sealed, proof.transitions) == (True, 2, 2)
    assert [seal.line.index for seal in seals(own, jobs[0])] == [0, 1]
    own.store.call("LSET", own.reader.keys.receipts(jobs[0]), 1, '{"at":1,"status":"completed"}')
    proof = verify_receipt(own, jobs[0])
    assert not proof.ok
    assert "transition 1 differs from line" in proof.faults[0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"input_sha256": "0" * 64}, "the sealed hash of the input is different"),
        ({"result_sha256": "0" * 64}, "the sealed hash of the result is different"),
        ({"transitions": []}, "transition 1 differs from line"),
    ],
    ids=["as it was", "input", "result", "reason"],
)
def test_a_receipt_of_the_history_is_proven_too(
    own: Bridge, scribe: Scribe, change: dict[str, Any], fault: str | None
) -> None:
    """Without a receipt chain, its transitions and its two hashes are compared."""
    (job_id,) = some_jobs(own, 1)
    scribe.seal()
    receipt = own.reader.receipt(job_id)
    if "transitions" in change:
        forged = msgspec.structs.replace(receipt.transitions[1], reason="as you wished")
        change = {"transitions": [receipt.transitions[0], forged]}
    ring = KeyRing(own.loaded.workspace.keys_dir)
    proof = prove_archived(msgspec.structs.replace(receipt, **change), seals(own, job_id), ring)
    assert (proof.ok, proof.sealed) == (fault is None, 2)
    assert [said.partition(" 2 of")[0] for said in proof.faults] == ([] if fault is None else [fault])


@settings(max_examples=200, deadline=None)
@given(
    reason=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.integers(-(2**53), 2**53),
)
def test_the_standard_library_writes_the_same_canonical_form(reason: str, number: int) -> None:
    """A line can be checked without our code."""
    value = {"z": {"reason": reason, "at": number}, "a": [None, True, reason]}
    ours = canonical(value)
    theirs = json.dumps(json.loads(ours), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert ours == theirs


def test_what_is_signed_is_the_line_without_its_signature(own: Bridge, scribe: Scribe) -> None:
    """As the documentation says."""
    some_jobs(own, 1)
    scribe.seal()
    raw = scribe.file.read_bytes().splitlines()[0]
    fields = msgspec.json.decode(raw)
    del fields["sig"]
    assert signed_part(read_line(raw)) == canonical(fields)
