"""Find one job, wherever it is: in the store, in the spool of this host, or in the history.

    job = find(bridge, "k3f9")
    print(job.record().status, job.source)

The spool is looked at first: a job moves from the spool to the store, so one that has left the spool is in the
store by then. The store is believed first. The history is opened only when neither has the job.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

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
from middleware.job.deliveries import read_deliveries
from middleware.job.ids import id_named, is_id_part
from middleware.job.reader import Reader
from middleware.job.records import Delivery, JobRecord, OutputChunk, Receipt
from middleware.job.states import FINAL, State
from ops.errors import AmbiguousJobId, BridgeError, JobNotFound, StoreUnreachable, WrongState

if TYPE_CHECKING:
    from middleware.archive.history import History

_Answer = TypeVar("_Answer")


class Source(StrEnum):
    """Where a job is."""

    STORE = "store"
    SPOOL = "spool"
    HISTORY = "history"


class JobHandle:
    """One job of a bridge, wherever it is; made by ``find``, or for a job that was just submitted.

    Args:
        bridge: The job's bridge.
        job_id: The whole id.
        source: Where the job is known to be.
        entry: Its entry in the spool, if there is one.
        unreachable: Why the store did not answer just now; it is not asked a second time then.

    Attributes:
        job_id: The whole id.
        source: Where the last read found the job; before the first read, where ``find`` did.
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
        """Return the job.

        Raises:
            JobNotFound: Neither store nor spool nor history has it.
            StoreUnreachable: The store is unavailable, and the spool does not have the job.
        """
        return self._read(
            lambda reader: reader.job(self.job_id), self._archived_record, lambda _, record: record
        )

    def receipt(self) -> Receipt:
        """Return the job's receipt; raises as ``record`` does."""
        return self._read(
            lambda reader: reader.receipt(self.job_id),
            lambda history: history.receipt(self.job_id),
            entry_receipt,
        )

    def spooled(self) -> JobRecord | None:
        """Return the job if the spool has it and the store does not, None otherwise."""
        return spooled_record(self._bridge, self.job_id)

    def output(self, *, follow: bool = False, after: str = "-") -> Iterator[OutputChunk]:
        """Yield the job's output; a job in the spool has none, the history keeps the end of it.

        Args:
            follow: Wait for more output until the job has ended.
            after: ``entry_id`` of the last chunk seen, ``-`` for the beginning.

        Raises:
            JobNotFound: Neither store nor spool nor history has the job.
            StoreUnreachable: The store is unavailable, and the spool does not have the job.
        """
        seen = after
        for record in until_enqueued(self._bridge, self.job_id):
            if record.is_final or not follow:
                return
        try:
            for chunk in self._bridge.follower.output(self.job_id, follow=follow, after=after):
                seen = chunk.entry_id
                yield chunk
        except JobNotFound as error:
            yield from self._from_history(lambda history: history.output(self.job_id), error, after=seen)

    def follow(self, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
        """Yield the job at once and after every change, until it has ended.

        Args:
            timeout_s: Limit for the whole, in seconds; None: no limit.

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
        """Return the job when it has ended, also one that only the history has; raises as ``follow`` does."""
        missing = JobNotFound(f"There is no longer a job {self.job_id}.", remedy="'3ox jobs' lists all jobs.")
        try:
            for record in self.follow(timeout_s=timeout_s):
                if record.is_final:
                    return record
        except JobNotFound as error:
            missing = error
        return self._from_history(self._archived_record, missing)
