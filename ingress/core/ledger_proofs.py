"""Verify the ledger and receipts, and return the public keys, for all interfaces.

The ledger is in the workspace of the host whose scheduler is the leader; a bridge over several hosts has
several.
"""

from __future__ import annotations

import time

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.lookup import Source, find
from middleware.archive.proof import Proof, Seal, prove, prove_archived, seals_of
from middleware.archive.verification import Verdict, Verification
from middleware.broker.ledger_progress import LedgerProgress
from middleware.job.assembly import job_not_found
from middleware.job.ids import ID_LENGTH, id_named, is_id_part, made_ms
from middleware.job.records import Receipt, ms_of, utc
from ops.errors import JobNotFound, StoreUnreachable
from ops.settings.load import LoadedSettings
from ops.signing import KeyRing, PublicKey

#: How long to wait for transitions to be sealed, which takes up to two seconds.
_SEAL_WAIT_S = 3.0
_POLL_S = 0.1


def key_ring(loaded: LoadedSettings) -> KeyRing:
    """Return the signing keys of a workspace."""
    return KeyRing(loaded.workspace.keys_dir, lifetime_s=loaded.settings.ledger_key_days * 86_400.0)


def public_keys(loaded: LoadedSettings) -> list[PublicKey]:
    """Return the public keys of a workspace's ledger, past and present; none before its first entry."""
    return key_ring(loaded).public_keys(time.time())


def verify_ledger(bridge: Bridge, *, day: str | None = None) -> Verdict:
    """Verify the ledger of this workspace.

    Args:
        bridge: The bridge. While the store is unavailable only the files are verified, and a note says so.
        day: Verify only this day, ``YYYY-MM-DD``.

    Raises:
        LedgerBroken: The ledger has no such day.
    """
    folder, keys = bridge.loaded.workspace.ledger_dir, key_ring(bridge.loaded)
    if day is not None:
        return Verification(folder, keys).run(day=day)
    try:
        return Verification(folder, keys).run(sealing=LedgerProgress(bridge.scripts), reader=bridge.reader)
    except StoreUnreachable:
        verdict = Verification(folder, keys).run()
        note = "the store is unavailable, so the ledger was not compared with it."
        return msgspec.structs.replace(verdict, notes=[*verdict.notes, note])


def seals(bridge: Bridge, job_id: str) -> list[Seal]:
    """Return the sealed ledger entries of a job in order, also of one that the store no longer has.

    Args:
        bridge: The job's bridge.
        job_id: The whole id.
    """
    created = bridge.store.call("HGET", bridge.reader.keys.job(job_id), "created")
    since_ms = 0 if created is None else int(created)
    return seals_of(bridge.loaded.workspace.ledger_dir, job_id, since_ms=since_ms)


def last_trace(bridge: Bridge, part: str, missing: JobNotFound) -> JobNotFound:
    """Return the error for a job that neither store nor history has, with its last state in the ledger.

    Args:
        bridge: The bridge whose ledger is searched.
        part: The id as given; only a whole id is searched for.
        missing: The error to return if the ledger does not have the job either.
    """
    job_id = id_named(part)
    if len(job_id) != ID_LENGTH or not is_id_part(job_id):
        return missing
    found = seals_of(bridge.loaded.workspace.ledger_dir, job_id, since_ms=made_ms(job_id))
    if not found:
        return missing
    entry = found[-1].line.entry
    why = f", {entry['reason']}" if entry.get("reason") else ""
    return JobNotFound(
        f"Job {job_id} was removed from store and history; its last state in the ledger is {entry['status']}"
        f" at {utc(entry['at'])}{why}.",
        remedy="If it was purged, 3ox.log has the time (jobs.purged).",
    )


def verify_receipt(bridge: Bridge, part: str) -> Proof:
    """Verify the receipt of a job against the ledger, also of one that only the history has.

    Waits up to 3 s for transitions that are not sealed yet.

    Args:
        bridge: The job's bridge.
        part: The job's id, or a unique part of it.

    Raises:
        JobNotFound: Neither store nor history has the job.
    """
    handle = find(bridge, part)
    try:
        return _verify_live(bridge, handle.job_id)
    except JobNotFound:
        receipt = handle.receipt()
        if handle.source is not Source.HISTORY:
            raise
        return _verify_past(bridge, receipt)


def _verify_past(bridge: Bridge, receipt: Receipt) -> Proof:
    created_ms = ms_of(receipt.created_at) if receipt.created_at else 0
    found = seals_of(bridge.loaded.workspace.ledger_dir, receipt.job_id, since_ms=created_ms)
    return prove_archived(receipt, found, key_ring(bridge.loaded))


def _verify_live(bridge: Bridge, job_id: str) -> Proof:
    keys = bridge.reader.keys
    ends_s = time.monotonic() + _SEAL_WAIT_S
    while True:
        waits, chain = bridge.reader.read(
            [("SISMEMBER", keys.unsealed, job_id), ("LRANGE", keys.receipts(job_id), 0, -1)]
        )
        if not chain:
            raise job_not_found(job_id)
        if not waits or time.monotonic() > ends_s:
            return prove(job_id, chain, seals(bridge, job_id), key_ring(bridge.loaded))
        time.sleep(_POLL_S)
