"""Find one job, wherever it is: in the store, in the spool of this host, or in the history.

    job = find(bridge, "k3f9")
    print(job.record().status, job.source)

The spool is looked at first: a job only moves from the spool to the store, so one that has left the spool is
in the store by then. The store is believed first. The history is opened only when neither has the job.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeVar

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.spooled_jobs import (
    SpoolEntry,
    entry_receipt,
    entry_record,
    find_entry,
    impatient_reader,
    spooled_record,
    until_enqueued,
)
from middleware.archive.history import History
from middleware.job.deliveries import read_deliveries
from middleware.job.ids import id_named, is_id_part
from middleware.job.reader import Reader
from middleware.job.records import Delivery, JobRecord, OutputChunk, Receipt
from middleware.job.states import FINAL, State
from ops.errors import AmbiguousJobId, BridgeError, JobNotFound, StoreUnreachable, WrongState

_Answer = TypeVar("_Answer")


class Source(StrEnum):
    """Where a job is."""

    STORE = "store"
    SPOOL = "spool"
    HISTORY = "history"


class JobHandle:
    """One job of a bridge, wherever it is. ``find`` makes it; make it directly for a job just submitted.

    Args:
        bridge: The job's bridge.
        job_id: The whole id.
        source: Where the job is known to be.
        entry: Its entry in the spool, if there is one.
        unreachable: The error of a store that did not answer just now, so that it is not asked again.

    Attributes:
        job_id: The whole id.
        source: Where the last read found the job.
    """

    def __init__(
        self,
        bridge: Bridge,
        job_id: str,
        *,
        source: Source = Source.STORE,
        entry: SpoolEntry | None = None,
        unreachable: StoreUnreachable | None = None,
    ) -> None:
        self.job_id = job_id
        self.source = source
        self._bridge = bridge
        self._entry = entry
        self._unreachable = unreachable

    def record(self) -> JobRecord:
        """Return the job as it is now.

        Raises:
            JobNotFound: Neither store nor spool nor history has it.
            StoreUnreachable: The store is unavailable, and the spool does not have the job.
        """
        return self._read(
            lambda reader: reader.job(self.job_id), self._archived_record, lambda _, record: record
        )

    def receipt(self) -> Receipt:
        """Return the job's receipt as it is now; raises as ``record`` does."""
        return self._read(
            lambda reader: reader.receipt(self.job_id),
            lambda history: history.receipt(self.job_id),
            entry_receipt,
        )

    def spooled(self) -> JobRecord | None:
        """Return the job if the spool has it and the store does not, None otherwise."""
        return spooled_record(self._bridge, self.job_id)

    def output(self, *, follow: bool = False, after: str = "-") -> Iterator[OutputChunk]:
        """Yield the job's output. A job in the spool has none; the history keeps the end of it.

        Args:
            follow: Wait for more output until the job has ended.
            after: ``entry_id`` of the last chunk seen, ``-`` for the beginning.

        Raises:
            JobNotFound: Neither store nor spool nor history has the job.
            StoreUnreachable: The store is unavailable, and the spool does not have the job.
        """
        if self.source is Source.HISTORY:
            yield from self._archived_output(after, _not_found(self.job_id))
            return
        for record in until_enqueued(self._bridge, self.job_id):
            if record.is_final or not follow:
                return
        try:
            for chunk in self._bridge.follower.output(self.job_id, follow=follow, after=after):
                after = chunk.entry_id
                yield chunk
        except JobNotFound as error:
            yield from self._archived_output(after, error)

    def follow(self, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
        """Yield the job now and after every change, up to its final state.

        Args:
            timeout_s: Limit for the whole, in seconds; None waits without limit.

        Raises:
            WaitTimeout: The job has not ended in time.
            JobNotFound: Neither store nor spool has the job.
            StoreUnreachable: The store was unavailable for more than 30 s.
        """
        ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        for record in until_enqueued(self._bridge, self.job_id, timeout_s=timeout_s):
            yield record
            if record.is_final:
                return
        left_s = None if ends_at_s is None else max(0.0, ends_at_s - time.monotonic())
        yield from self._bridge.follower.follow(self.job_id, timeout_s=left_s)

    def wait(self, *, timeout_s: float | None = None) -> JobRecord:
        """Return the job when it has ended, also if only the history has it; raises as ``follow`` does."""
        missing = _not_found(self.job_id)
        try:
            for record in self.follow(timeout_s=timeout_s):
                if record.is_final:
                    return record
        except JobNotFound as error:
            missing = error
        return self._from_history(self._archived_record, missing)

    def _read(
        self,
        live: Callable[[Reader], _Answer],
        archived: Callable[[History], _Answer | None],
        spooled: Callable[[SpoolEntry, JobRecord], _Answer],
    ) -> _Answer:
        """Return the answer of the first place that has the job, and note that place in ``source``."""
        if self.source is Source.HISTORY:
            return self._from_history(archived, _not_found(self.job_id))
        entry, unreachable = self._entry, self._unreachable
        try:
            if unreachable is None:
                answer = live(self._bridge.reader if entry is None else impatient_reader(self._bridge))
                self.source = Source.STORE
                return answer
        except JobNotFound as error:
            if entry is None:
                return self._from_history(archived, error)
            with contextlib.suppress(JobNotFound):
                return self._from_history(archived, error)
        except StoreUnreachable as error:
            if entry is None:
                raise
            unreachable = error
        record = None if entry is None else entry_record(self._bridge, entry, unreachable)
        if entry is None or record is None:
            # The store has accepted the job since it was found in the spool.
            self.source = Source.STORE
            return live(self._bridge.reader)
        self.source = Source.SPOOL
        return spooled(entry, record)

    def _from_history(self, read: Callable[[History], _Answer | None], missing: JobNotFound) -> _Answer:
        """Return what the history answers; raise ``missing`` if it does not have the job."""
        path = self._bridge.loaded.workspace.history_db
        if not path.exists():
            raise missing
        with History(path) as history:
            answer = read(history)
        if answer is None:
            raise missing
        self.source = Source.HISTORY
        return answer

    def _archived_output(self, after: str, missing: JobNotFound) -> list[OutputChunk]:
        chunks = self._from_history(lambda history: history.output(self.job_id), missing)
        return [chunk for chunk in chunks if after == "-" or _order(chunk.entry_id) > _order(after)]

    def _archived_record(self, history: History) -> JobRecord | None:
        """Return the archived job, with the present state of its deliveries: they may outlive it."""
        record = history.job(self.job_id)
        if record is None or all(delivery.status == State.COMPLETED for delivery in record.deliveries):
            return record
        count = max(int(delivery.delivery_id.rpartition("-")[2]) for delivery in record.deliveries)
        reader = self._bridge.reader
        found = read_deliveries(reader.read, reader.keys, {self.job_id: count}).get(self.job_id, ())
        now = {delivery.sink: delivery for delivery in found}
        return msgspec.structs.replace(
            record, deliveries=[now.get(known.sink, _last_known(known)) for known in record.deliveries]
        )


def find(bridge: Bridge, part: str) -> JobHandle:
    """Return a handle to a job.

    A whole id is not looked up: what is read first through the handle raises ``JobNotFound``.

    Args:
        bridge: The bridge to search.
        part: The job's id, or a prefix or suffix of it that only one job has.

    Raises:
        JobNotFound: Neither store nor spool nor history has such a job.
        AmbiguousJobId: More than one job fits.
        StoreUnreachable: The store is unavailable, and the spool does not have the job.
    """
    entry = find_entry(bridge, part)
    try:
        job_id = (bridge.reader if entry is None else impatient_reader(bridge)).resolve(part)
    except JobNotFound:
        archived = _archived_ids(bridge, part)
        if len(archived) > 1:
            raise _ambiguous(part, archived) from None
        if archived:
            return JobHandle(bridge, archived[0], source=Source.HISTORY)
        if entry is None:
            raise
        return JobHandle(bridge, entry.job_id, source=Source.SPOOL, entry=entry)
    except StoreUnreachable as error:
        if entry is None:
            raise
        return JobHandle(bridge, entry.job_id, source=Source.SPOOL, entry=entry, unreachable=error)
    if entry is None or entry.job_id == job_id:
        return JobHandle(bridge, job_id, entry=entry)
    if not entry.is_quarantined:
        raise _ambiguous(part, [entry.job_id, job_id])
    return JobHandle(bridge, job_id)


def not_in_store(bridge: Bridge, part: str) -> BridgeError:
    """Return the error for an action on a job that the store does not have; it says where the job is.

    Args:
        bridge: The bridge to search.
        part: The job's id, or a unique part of it.
    """
    try:
        handle = find(bridge, part)
        record = handle.record()
    except BridgeError as error:
        return error
    return elsewhere(handle.source, record)


def elsewhere(source: Source, record: JobRecord) -> BridgeError:
    """Return the error for an action on a job that is not in the store.

    Args:
        source: Where it is.
        record: The job as it is there.
    """
    if source is Source.SPOOL and record.is_final:
        return WrongState(f"{record.job_id} is not in the store: {record.reason}", remedy="Submit a new job.")
    if source is Source.SPOOL:
        return WrongState(
            f"{record.job_id} is not in the store yet: {record.reason}",
            remedy="Try again when the store has accepted it.",
        )
    return JobNotFound(
        f"{record.job_id} is no longer in the store; the history has it as {record.status}.",
        remedy="Submit a new job.",
    )


def _archived_ids(bridge: Bridge, part: str) -> list[str]:
    path, word = bridge.loaded.workspace.history_db, id_named(part)
    if not is_id_part(word) or not path.exists():
        return []
    with History(path) as history:
        return history.resolve(word)


def _ambiguous(part: str, job_ids: list[str]) -> AmbiguousJobId:
    return AmbiguousJobId(
        f"{part!r} matches more than one job: {', '.join(sorted(job_ids)[:3])}.",
        remedy="Use more characters of the id.",
    )


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"Job {job_id!r} not found.", remedy="'3ox jobs --all' lists all jobs.")


def _last_known(delivery: Delivery) -> Delivery:
    """Return a delivery that the store no longer has, with the reason that its state may be out of date."""
    if delivery.status in FINAL:
        return delivery
    reason = "its state when the job was archived; the store has removed both since"
    return msgspec.structs.replace(delivery, reason=f"{delivery.reason}; {reason}".removeprefix("; "))


def _order(entry_id: str) -> tuple[int, int]:
    at_ms, _, number = entry_id.partition("-")
    return int(at_ms), int(number or 0)
