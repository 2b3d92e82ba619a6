"""Accepts jobs for a daemon: into the queue, or into the spool while the store is away.

Either way the caller has its receipt and the job is safe. What was spooled is handed over in order, each job
once: it keeps its id, and the store knows an id that it has taken before.
"""

from __future__ import annotations

import threading
import time

import msgspec

from ingress.dispatch import Bridge
from middleware.broker.intake import payload_sha256
from middleware.broker.outage import backoff_s
from middleware.job.records import Receipt, new_receipt
from middleware.job.schema import Job, decode_job, encode_job
from ops.background import start_duty
from ops.errors import InvalidJob, QueueFull, StoreError, StoreUnreachable, UnknownProject
from ops.logs import get_logger
from ops.spool import Spool

#: Status of a receipt whose job is in the spool.
SPOOLED = "spooled"
_HAND_OVER_BATCH = 50

log = get_logger(__name__)


class Spooled(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the spool.

    Attributes:
        job: As ``encode_job`` writes it.
        due_s: When it is to start, in seconds since 1970; None: at once.
    """

    job: msgspec.Raw
    due_s: float | None = None


class Acceptance:
    """Accepts jobs and hands over the spool; one per daemon.

    Args:
        bridge: Where the jobs go.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        loaded = bridge.loaded
        self.spool = Spool(loaded.workspace.spool_dir, max_bytes=loaded.settings.spool_max_bytes)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to hand over what is in the spool, now and whenever something gets into it."""
        self._thread = start_duty("hand-over", self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop; what is in the spool stays there."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def accept(self, job: Job, *, delay_s: float | None = None) -> Receipt:
        """Take a job.

        Args:
            job: From ``make_job``.
            delay_s: Start it so many seconds from now.

        Returns:
            Its receipt; with status ``spooled`` if it went to the spool.

        Raises:
            InvalidJob: It does not fit; nothing is kept.
            QueueFull: Too many jobs wait.
            SpoolFull: The store is away and the spool takes no more.
        """
        # While older jobs are in the spool, newer ones queue up behind them: the order is kept.
        if self.spool.is_empty():
            try:
                return self._bridge.submit(job, delay_s=delay_s)
            except StoreUnreachable as error:
                log.warning("job.spooled", job_id=job.job_id, reason=str(error))
        self._bridge.intake.check(job)
        complete = self._bridge.intake.complete(job)
        entry = Spooled(job=msgspec.Raw(encode_job(complete)))
        if delay_s is not None:
            entry = Spooled(job=entry.job, due_s=time.time() + delay_s)
        self.spool.add(job.job_id, msgspec.json.encode(entry))
        self._wake.set()
        return new_receipt(
            complete,
            status=SPOOLED,
            at_ms=time.time_ns() // 1_000_000,
            input_sha256=payload_sha256(complete),
        )

    def hand_over(self) -> int:
        """Hand over everything in the spool, in order.

        Returns:
            How many jobs were handed over; 0 if another process is at it.

        Raises:
            StoreUnreachable: The store is away; what was not handed over stays.
            QueueFull: The same for a full queue.
        """
        handed = 0
        with self.spool.taking() as ours:
            if ours:
                self.spool.sweep_drafts()
            while ours:
                entries = self.spool.entries()[:_HAND_OVER_BATCH]
                if not entries:
                    return handed
                for entry in entries:
                    try:
                        job, delay_s = _read(entry.read_bytes())
                        self._bridge.submit(job, delay_s=delay_s)
                    except (InvalidJob, UnknownProject, StoreError) as error:
                        aside = self.spool.set_aside(entry)
                        log.warning("spool.refused", entry=str(aside), reason=str(error))
                        continue
                    entry.unlink()
                    handed += 1
        return handed

    def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            try:
                if not self.spool.is_empty():
                    handed = self.hand_over()
                    if handed:
                        log.info("spool.handed_over", jobs=handed)
                tries = 0
            except (StoreUnreachable, QueueFull):
                tries += 1
            wait_s = backoff_s(tries) if tries else 5.0
            self._wake.wait(wait_s)
            if not tries:
                self._wake.clear()
            elif self._stopping.wait(wait_s):
                return


def _read(data: bytes) -> tuple[Job, float | None]:
    """Read an entry: the job, and how long it is still to wait.

    Raises:
        InvalidJob: It cannot be read.
    """
    try:
        entry = msgspec.json.decode(data, type=Spooled)
    except msgspec.MsgspecError as error:
        raise InvalidJob(f"the entry cannot be read: {error}.", remedy="Delete it.") from error
    return decode_job(bytes(entry.job)), None if entry.due_s is None else max(0.0, entry.due_s - time.time())
