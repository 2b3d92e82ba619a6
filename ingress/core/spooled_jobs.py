"""Jobs in the spool: their entries on disk, and what is shown of a job that the store does not have yet.

A spooled job is found by its id like any other. Its status is ``spooled`` until the store has accepted it. An
entry that the store refuses is quarantined with the reason, and its job shown as ``failed`` or ``cancelled``.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ingress.core.bridge import Bridge
from middleware.job.assembly import LIFE_FIELDS, make_record
from middleware.job.ids import id_named, is_id_part
from middleware.job.reader import Reader
from middleware.job.receipt import make_receipt, payload_sha256
from middleware.job.records import JobError, JobRecord, Receipt, Transition, utc
from middleware.job.schema import Job, decode_job
from middleware.job.states import State
from ops.errors import AmbiguousJobId, BridgeError, InvalidJob, StoreUnreachable, WaitTimeout
from ops.spool import Spool
from ops.store.client import Store

#: Status of a job, and of its receipt, that the store has not accepted yet.
SPOOLED = "spooled"
#: Limit for an answer of the store about a job that is known to be in the spool, in seconds.
IMPATIENT_S = 1.0
#: Interval at which the folder is looked at even if no change of it was reported.
_POLL_MS = 2000
#: Changes within this time count as one.
_DEBOUNCE_MS = 100


class Spooled(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of an entry.

    Attributes:
        job: As ``encode_job`` writes it.
        due_s: When the job is to start, in seconds since 1970; None: at once.
    """

    job: msgspec.Raw
    due_s: float | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why an entry was quarantined.

    Attributes:
        status: ``failed``: the job was refused; ``cancelled``: another job has its idempotency key.
        at_ms: When, in milliseconds since 1970.
        error: What refused the job, and why.
    """

    status: Literal["failed", "cancelled"]
    at_ms: int
    error: JobError


class SpoolEntry(NamedTuple):
    """A job's entry in the spool.

    Attributes:
        job_id: The whole id.
        path: Path of the entry.
        ahead: How many entries are submitted before it.
        is_quarantined: The entry was refused and quarantined.
    """

    job_id: str
    path: Path
    ahead: int = 0
    is_quarantined: bool = False

    @property
    def since_ms(self) -> int:
        """When the job was spooled, in milliseconds since 1970."""
        stamp = self.path.name.partition("-")[0]
        return int(stamp) // 1_000_000 if stamp.isdecimal() else 0


def read_entry(data: bytes) -> tuple[Job, float | None]:
    """Return the job of an entry, and the rest of its delay in seconds.

    Raises:
        InvalidJob: The entry cannot be read.
    """
    try:
        entry = msgspec.json.decode(data, type=Spooled)
    except msgspec.MsgspecError as error:
        raise InvalidJob(f"The entry cannot be read: {error}.", remedy="Delete it.") from error
    return decode_job(bytes(entry.job)), None if entry.due_s is None else max(0.0, entry.due_s - time.time())


def open_spool(bridge: Bridge) -> Spool:
    """Return the spool of this host's workspace."""
    loaded = bridge.loaded
    return Spool(loaded.workspace.spool_dir, max_bytes=loaded.settings.spool_max_bytes)


def find_entry(bridge: Bridge, part: str) -> SpoolEntry | None:
    """Return a job's entry in the spool, None if there is none; looks at file names only.

    Look here first and in the store afterwards: a job only moves from the spool to the store.

    Args:
        bridge: The bridge whose spool is searched.
        part: The job's id, or a unique part of it.

    Raises:
        AmbiguousJobId: More than one job fits.
    """
    word = id_named(part)
    if not is_id_part(word):
        return None
    spool = open_spool(bridge)
    entries = [SpoolEntry(job_id_of(path), path, ahead) for ahead, path in enumerate(spool.entries())]
    hits = [entry for entry in entries if _fits(entry.job_id, word)]
    if not hits:
        refused = [SpoolEntry(job_id_of(path), path, is_quarantined=True) for path in spool.quarantined()]
        hits = [entry for entry in refused if _fits(entry.job_id, word)]
    ids = sorted({entry.job_id for entry in hits})
    if len(ids) > 1:
        raise AmbiguousJobId(
            f"{part!r} matches more than one job: {', '.join(ids[:3])}.",
            remedy="Use more characters of the id.",
        )
    return hits[0] if hits else None


def _fits(job_id: str, word: str) -> bool:
    return job_id.startswith(word) or job_id.endswith(word)


def job_id_of(path: Path) -> str:
    """Return the id of the job in an entry, by the entry's name."""
    return path.name.removesuffix(path.suffix).split("-", 2)[-1]


def list_spooled(bridge: Bridge) -> list[JobRecord]:
    """Return all jobs that wait in the spool, the latest first, with what they wait for."""
    entries = [SpoolEntry(job_id_of(path), path, n) for n, path in enumerate(open_spool(bridge).entries())]
    why = _waits_for(bridge, impatient_reader(bridge)) if entries else ""
    records = [_read_record(entry, why) for entry in reversed(entries)]
    return [record for record in records if record is not None]


def entry_record(
    bridge: Bridge, entry: SpoolEntry, unreachable: StoreUnreachable | None = None
) -> JobRecord | None:
    """Return the job of an entry, None if the store has accepted it meanwhile.

    Args:
        bridge: The bridge whose spool it is.
        entry: From ``find_entry``.
        unreachable: The store's latest answer. Without, the store is asked what the job waits for.
    """
    if not entry.is_quarantined:
        why = _store_unavailable(unreachable) if unreachable else _waits_for(bridge, impatient_reader(bridge))
        record = _read_record(entry, why)
        if record is not None:
            return record
        # It may have been quarantined since it was found.
        found = find_entry(bridge, entry.job_id)
        if found is None or not found.is_quarantined:
            return None
        entry = found
    return _read_record(entry, "")


def spooled_record(bridge: Bridge, part: str) -> JobRecord | None:
    """Return a job that is in the spool and not in the store, None for any other.

    Raises:
        AmbiguousJobId: More than one job fits.
    """
    entry = find_entry(bridge, part)
    if entry is None:
        return None
    unreachable: StoreUnreachable | None = None
    try:
        if impatient_reader(bridge).status_of(entry.job_id) is not None:
            return None
    except StoreUnreachable as error:
        unreachable = error
    return entry_record(bridge, entry, unreachable)


def entry_receipt(entry: SpoolEntry, record: JobRecord) -> Receipt:
    """Return the receipt of a job that ``entry_record`` returned."""
    created = str(record.created_at)
    if record.completed_at is None:
        moves = [Transition(created, SPOOLED, reason=record.reason)]
    else:
        moves = [
            Transition(created, SPOOLED),
            Transition(record.completed_at, record.status, reason=record.reason),
        ]
    input_sha256 = ""
    with contextlib.suppress(FileNotFoundError, InvalidJob):  # accepted by the store just now; or unreadable
        input_sha256 = payload_sha256(read_entry(entry.path.read_bytes())[0])
    return make_receipt(record, moves, input_sha256=input_sha256)


def impatient_reader(bridge: Bridge) -> Reader:
    """Return a reader that waits for the store at most ``IMPATIENT_S``; for jobs that may be in the spool."""
    if bridge.store.timeout_s <= IMPATIENT_S:
        return bridge.reader
    return Reader(Store.open(bridge.loaded, timeout_s=IMPATIENT_S), bridge.loaded.settings.key_prefix)


def until_enqueued(bridge: Bridge, part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job that is in the spool, and return when it has left it; yield nothing for any other job.

    A job that is quarantined is yielded a second time, in its final state.

    Args:
        bridge: The bridge whose spool it is.
        part: The job's id, or a unique part of it.
        timeout_s: Limit in seconds; None waits without limit.

    Raises:
        AmbiguousJobId: More than one job fits.
        WaitTimeout: The time ran out.
    """
    record = spooled_record(bridge, part)
    if record is None:
        return
    yield record
    if record.is_final:
        return
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    _await_removal(open_spool(bridge), record, deadline_s)
    entry = find_entry(bridge, record.job_id)
    ended = entry_record(bridge, entry) if entry is not None and entry.is_quarantined else None
    if ended is not None:
        yield ended


def _await_removal(spool: Spool, record: JobRecord, deadline_s: float | None) -> None:
    """Return when the job's entry has left the spool.

    Raises:
        WaitTimeout: The time ran out.
    """
    import logging

    from watchfiles import watch

    def is_there() -> bool:
        return any(job_id_of(path) == record.job_id for path in spool.entries())

    # watchfiles logs every change; if the log is below the folder, each line would be a change.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    left_s = _POLL_MS / 1000
    while is_there():
        if deadline_s is not None:
            left_s = min(left_s, deadline_s - time.monotonic())
            if left_s <= 0:
                raise WaitTimeout(
                    f"{record.job_id} has not ended in time: {record.reason}",
                    remedy="Wait longer; '3ox status' shows whether the store is available.",
                )
        # A change from before the watch began is seen after the timeout at the latest.
        changes = watch(
            spool.folder,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_DEBOUNCE_MS // 4,
            rust_timeout=max(1, round(left_s * 1000)),
            yield_on_timeout=True,
            recursive=False,
        )
        next(changes, None)
        changes.close()


def _read_record(entry: SpoolEntry, why: str) -> JobRecord | None:
    """Return the job of an entry, None if the entry is gone."""
    try:
        data = entry.path.read_bytes()
    except FileNotFoundError:
        return None
    life: dict[str, bytes | None] = dict.fromkeys(LIFE_FIELDS)
    try:
        content = msgspec.json.decode(data, type=Spooled)
    except msgspec.MsgspecError:
        life["spec"] = None
    else:
        life["spec"] = bytes(content.job)
        life["due"] = None if content.due_s is None else str(round(content.due_s * 1000)).encode()
    since = utc(entry.since_ms)
    life["status"], life["created"] = SPOOLED.encode(), str(entry.since_ms).encode()
    reason = f"in the spool since {since}, because the store did not accept it; {why}"
    if entry.ahead and not entry.is_quarantined:
        reason += f" ({entry.ahead} ahead of it)"
    if entry.is_quarantined:
        refusal = _read_refusal(entry.path)
        reason = f"{refusal.error.message} Spooled at {since}, now quarantined: {entry.path}"
        life["status"], life["completed"] = refusal.status.encode(), str(refusal.at_ms).encode()
        life["error"] = refusal.error.encode() if refusal.status == "failed" else None
    life["reason"] = reason.encode()
    record = make_record(entry.job_id, [life[name] for name in LIFE_FIELDS])
    return msgspec.structs.replace(record, queued_at=None)


def _read_refusal(path: Path) -> Refusal:
    try:
        return msgspec.json.decode(Spool.reason_file(path).read_bytes(), type=Refusal)
    except (FileNotFoundError, msgspec.MsgspecError):
        message = "the store refused it; 3ox.log has the reason."
        return Refusal(
            "failed", round(path.stat().st_mtime * 1000), JobError("Unknown", message, "Submit a new job.")
        )


def _store_unavailable(error: BridgeError) -> str:
    return f"waiting for the store: {error.message}"


def _waits_for(bridge: Bridge, reader: Reader) -> str:
    """Return what the jobs in the spool wait for."""
    keys, queue_max = reader.keys, bridge.loaded.settings.queue_max
    try:
        now, members, *waiting = reader.read(
            [
                ("TIME",),
                ("ZRANGE", keys.daemons, 0, -1, "WITHSCORES"),
                *(("ZCARD", keys.state(state)) for state in (State.QUEUED, State.SCHEDULED, State.HELD)),
            ]
        )
    except BridgeError as error:
        return _store_unavailable(error)
    if sum(waiting) >= queue_max:
        return f"waiting for room in the queue, which is full (queue_max is {queue_max})"
    here = f"@{socket.gethostname()}"
    lives = any(
        member.decode().rpartition(":")[0].endswith(here) and float(lease) > int(now[0]) * 1000
        for member, lease in zip(members[::2], members[1::2], strict=True)
    )
    if lives:
        return "the store is available again, and a daemon of this host is submitting it"
    return "waiting for a daemon of this host to submit it, and none is running: start one with '3ox up'"
