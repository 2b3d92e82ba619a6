"""Jobs that lie in the spool: what an entry is, and what the doors say of a job that the store does not have.

Such a job is found by its id as any other. It has the status ``spooled`` until the store has taken it; what
was refused at the hand-over is set aside, with the reason, and shown as ``failed`` or ``cancelled``.
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
from ops.errors import (
    AmbiguousJobId,
    BridgeError,
    InvalidJob,
    StoreUnreachable,
    WaitTimeout,
)
from ops.spool import Spool
from ops.store.client import Store

#: Status of a job, and of its receipt, that the store has not taken yet.
SPOOLED = "spooled"
#: So long a store may take to answer whoever asks for a job that is known to lie in the spool.
BRIEF_S = 1.0
#: How often whoever waits for a hand-over looks all the same, should a change of the folder go unheard.
_LISTEN_MS = 2000
#: Changes within so long count as one.
_COLLECT_MS = 100


class Spooled(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the spool.

    Attributes:
        job: As ``encode_job`` writes it.
        due_s: When it is to start, in seconds since 1970; None: at once.
    """

    job: msgspec.Raw
    due_s: float | None = None


class Aside(msgspec.Struct, frozen=True):
    """Why an entry was set aside instead of handed over.

    Attributes:
        status: ``failed``: it was refused; ``cancelled``: another job was taken in its place.
        at_ms: When.
        error: Who refused it, and why.
    """

    status: Literal["failed", "cancelled"]
    at_ms: int
    error: JobError


class Found(NamedTuple):
    """A job in the spool.

    Attributes:
        job_id: Its whole id.
        path: Where the entry lies.
        before: How many entries are handed over before it.
        is_aside: It was set aside.
    """

    job_id: str
    path: Path
    before: int = 0
    is_aside: bool = False

    @property
    def since_ms(self) -> int:
        """When it was spooled, in milliseconds since 1970."""
        stamp = self.path.name.partition("-")[0]
        return int(stamp) // 1_000_000 if stamp.isdecimal() else 0


def read_entry(data: bytes) -> tuple[Job, float | None]:
    """Read an entry: the job, and how long it is still to wait, in seconds.

    Raises:
        InvalidJob: It cannot be read.
    """
    try:
        entry = msgspec.json.decode(data, type=Spooled)
    except msgspec.MsgspecError as error:
        raise InvalidJob(f"the entry cannot be read: {error}.", remedy="Delete it.") from error
    return decode_job(bytes(entry.job)), None if entry.due_s is None else max(0.0, entry.due_s - time.time())


def spool_of(bridge: Bridge) -> Spool:
    """Give the spool of this host's workspace."""
    loaded = bridge.loaded
    return Spool(loaded.workspace.spool_dir, max_bytes=loaded.settings.spool_max_bytes)


def find(bridge: Bridge, part: str) -> Found | None:
    """Look for a job in the spool, by names of files only.

    Whoever looks here first and into the store afterwards misses nothing: a job goes one way.

    Args:
        bridge: Whose spool.
        part: The job's id, or a unique part of it.

    Returns:
        It, or None if it is not there.

    Raises:
        AmbiguousJobId: More than one fits.
    """
    word = id_named(part)
    if not is_id_part(word):
        return None
    spool = spool_of(bridge)
    entries = spool.entries()
    hits = [
        Found(job_id, path, before)
        for before, path in enumerate(entries)
        if (job_id := id_of(path)).startswith(word) or job_id.endswith(word)
    ]
    if not hits:
        aside = ((id_of(path), path) for path in spool.quarantined())
        hits = [
            Found(job_id, path, is_aside=True)
            for job_id, path in aside
            if job_id.startswith(word) or job_id.endswith(word)
        ]
    ids = sorted({hit.job_id for hit in hits})
    if len(ids) > 1:
        raise AmbiguousJobId(
            f"{part!r} fits more than one job: {', '.join(ids[:3])}.", remedy="Give more characters."
        )
    return hits[0] if hits else None


def id_of(path: Path) -> str:
    """Give the id of the job in an entry, by the entry's name."""
    return path.name.removesuffix(path.suffix).split("-", 2)[-1]


def listed(bridge: Bridge) -> list[JobRecord]:
    """Give all jobs that wait in the spool, the latest first; asks the store briefly what holds them up."""
    entries = [Found(id_of(path), path, before) for before, path in enumerate(spool_of(bridge).entries())]
    why = _hindrance(bridge, brief(bridge)) if entries else ""
    records = [_read(found, why) for found in reversed(entries)]
    return [record for record in records if record is not None]


def record_of(bridge: Bridge, found: Found, away: StoreUnreachable | None = None) -> JobRecord | None:
    """Give what is known of a job in the spool; None if the store has taken it meanwhile.

    Args:
        bridge: Whose spool.
        found: Of ``find``.
        away: What the store has just said. Without, it is asked what the job waits for, briefly.
    """
    if not found.is_aside:
        why = _hindrance(bridge, brief(bridge)) if away is None else _waits_for_store(away)
        record = _read(found, why)
        if record is not None:
            return record
        # It may have been set aside since it was found.
        again = find(bridge, found.job_id)
        if again is None or not again.is_aside:
            return None
        found = again
    return _read(found, "")


def in_spool(bridge: Bridge, part: str) -> JobRecord | None:
    """Give a job that lies in the spool and is not in the store, None for any other.

    Raises:
        AmbiguousJobId: More than one fits.
    """
    found = find(bridge, part)
    if found is None:
        return None
    away: StoreUnreachable | None = None
    try:
        if brief(bridge).status_of(found.job_id) is not None:
            return None
    except StoreUnreachable as error:
        away = error
    return record_of(bridge, found, away)


def receipt_of(found: Found, record: JobRecord) -> Receipt:
    """Give the receipt of a job that ``record_of`` gave."""
    created = str(record.created_at)
    if record.completed_at is None:
        moves = [Transition(created, SPOOLED, reason=record.reason)]
    else:
        moves = [
            Transition(created, SPOOLED),
            Transition(record.completed_at, record.status, reason=record.reason),
        ]
    input_sha256 = ""
    with contextlib.suppress(FileNotFoundError, InvalidJob):  # handed over at this moment; or of no use
        input_sha256 = payload_sha256(read_entry(found.path.read_bytes())[0])
    return make_receipt(record, moves, input_sha256=input_sha256)


def brief(bridge: Bridge) -> Reader:
    """Give a reader that does not wait long for the store: what it would say is not all that is known."""
    if bridge.store.timeout_s <= BRIEF_S:
        return bridge.reader
    return Reader(Store.open(bridge.loaded, timeout_s=BRIEF_S), bridge.loaded.settings.key_prefix)


def until_handed_over(bridge: Bridge, part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job as it lies in the spool, and go on when it has left it; woken by the folder.

    A job that is not there is not waited for. What was set aside is yielded once more, as it ended.

    Args:
        bridge: Whose spool.
        part: The job's id, or a unique part of it.
        timeout_s: For how long at most; None: as long as it takes.

    Raises:
        AmbiguousJobId: More than one fits.
        WaitTimeout: The time ran out.
    """
    record = in_spool(bridge, part)
    if record is None:
        return
    yield record
    if record.is_final:
        return
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    _await_change(spool_of(bridge), record, deadline_s)
    found = find(bridge, record.job_id)
    ended = record_of(bridge, found) if found is not None and found.is_aside else None
    if ended is not None:
        yield ended


def _await_change(spool: Spool, record: JobRecord, deadline_s: float | None) -> None:
    """Return when the job's entry is gone.

    Raises:
        WaitTimeout: The time ran out.
    """
    import logging

    from watchfiles import watch

    def is_there() -> bool:
        return any(id_of(path) == record.job_id for path in spool.entries())

    # It tells the log of every change, and the log may lie below the folder.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    left_s = _LISTEN_MS / 1000
    while is_there():
        if deadline_s is not None:
            left_s = min(left_s, deadline_s - time.monotonic())
            if left_s <= 0:
                raise WaitTimeout(
                    f"{record.job_id} has not ended in time: {record.reason}",
                    remedy="Wait longer; '3ox status' tells whether the store is there.",
                )
        # What changed before it listened is seen when it has listened in vain, at the latest.
        changes = watch(
            spool.folder,
            watch_filter=None,
            debounce=_COLLECT_MS,
            step=_COLLECT_MS // 4,
            rust_timeout=max(1, round(left_s * 1000)),
            yield_on_timeout=True,
            recursive=False,
        )
        next(changes, None)
        changes.close()


_AGAIN = "Dispatch it anew."


def _read(found: Found, why: str) -> JobRecord | None:
    """Put the record together; None if the entry has gone meanwhile."""
    try:
        data = found.path.read_bytes()
    except FileNotFoundError:
        return None
    life: dict[str, bytes | None] = dict.fromkeys(LIFE_FIELDS)
    try:
        entry = msgspec.json.decode(data, type=Spooled)
    except msgspec.MsgspecError:
        life["spec"] = None
    else:
        life["spec"] = bytes(entry.job)
        life["due"] = None if entry.due_s is None else str(round(entry.due_s * 1000)).encode()
    since = utc(found.since_ms)
    life["status"], life["created"] = SPOOLED.encode(), str(found.since_ms).encode()
    reason = f"it lies in the spool since {since}, when the store did not take it; {why}"
    if found.before and not found.is_aside:
        reason += f" ({found.before} before it)"
    if found.is_aside:
        aside = _why_aside(found.path)
        reason = f"{aside.error.message} It was spooled at {since} and set aside: {found.path}"
        life["status"], life["completed"] = aside.status.encode(), str(aside.at_ms).encode()
        life["error"] = aside.error.encode() if aside.status == "failed" else None
    life["reason"] = reason.encode()
    record = make_record(found.job_id, [life[name] for name in LIFE_FIELDS])
    return msgspec.structs.replace(record, queued_at=None)


def _why_aside(path: Path) -> Aside:
    try:
        return msgspec.json.decode(Spool.reason_file(path).read_bytes(), type=Aside)
    except (FileNotFoundError, msgspec.MsgspecError):
        error = JobError("Unknown", "it was refused when it was handed over; 3ox.log says why.", _AGAIN)
        return Aside("failed", round(path.stat().st_mtime * 1000), error)


def _waits_for_store(error: BridgeError) -> str:
    return f"it waits for the store: {error.message}"


def _hindrance(bridge: Bridge, reader: Reader) -> str:
    """Say in a few words what a job in the spool waits for."""
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
        return _waits_for_store(error)
    if sum(waiting) >= queue_max:
        return f"it waits for room in the queue, which is full (queue_max is {queue_max})"
    here = f"@{socket.gethostname()}"
    lives = any(
        member.decode().rpartition(":")[0].endswith(here) and float(lease) > int(now[0]) * 1000
        for member, lease in zip(members[::2], members[1::2], strict=True)
    )
    if lives:
        return "the store is back, and a daemon of this host hands it over"
    return "it waits for a daemon of this host to hand it over, and none runs: '3ox up' starts them"
