"""Accept jobs for a daemon: into the queue, or into the spool while the store is unavailable.

Either way the caller gets a receipt, and the job is not lost. Spooled jobs are submitted in order, each
once: a job keeps its id, and the store recognizes an id it has accepted before. That also covers a submission
without an answer: if the store carried it out after all, the next submission finds the job there.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.spooled_jobs import SPOOLED, Refusal, Spooled, read_entry
from middleware.job.receipt import first_receipt, payload_sha256
from middleware.job.records import JobError, Receipt
from middleware.job.schema import Job, encode_job
from ops.backoff import Backoff
from ops.errors import (
    InvalidJob,
    JobNotFound,
    PolicyDenied,
    QueueFull,
    StartFailed,
    StoreError,
    StoreUnreachable,
    UnknownProject,
)
from ops.logs import get_logger
from ops.spool import Spool
from ops.store.client import Store
from ops.threads import start_duty

_BATCH = 50
#: Interval at which jobs spooled by other processes are looked for; our own wake the thread.
_POLL_S = 5.0
#: Limit for the store's answer, in seconds, before a job goes to the spool: the caller waits for the receipt.
ACCEPT_S = 1.0
#: How many errors of the store an entry survives; with the backoff in between, some minutes.
_REFUSALS_MAX = 30
#: How many idempotency keys a daemon remembers for an outage, the latest ones.
_KEYS_MAX = 10_000

log = get_logger(__name__)


class Acceptance:
    """Accepts jobs and submits the spooled ones; one per daemon.

    Args:
        bridge: The bridge that gets the jobs.

    Attributes:
        spool: The jobs that the store has not accepted yet.
        store_unavailable: Set while the store is known not to answer. Jobs then go to the spool at once,
            without waiting for a timeout; the thread that submits the spool clears it.
        quick: The bridge with the short timeout of a caller who waits.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        loaded = bridge.loaded
        # Submitting the spool waits longer: no caller waits for it, and a slow store gets the time
        # it needs.
        accept_s = min(ACCEPT_S, bridge.store.timeout_s)
        self.quick = Bridge(loaded, store=Store.open(loaded, timeout_s=accept_s))
        self.quick.admission.follow_settings(bridge.admission.latest)
        self.spool = Spool(loaded.workspace.spool_dir, max_bytes=loaded.settings.spool_max_bytes)
        self.store_unavailable = threading.Event()
        self._keys = _IdempotencyKeys(self.quick, self.spool, self.store_unavailable)
        self._refusals: deque[str] = deque(maxlen=_REFUSALS_MAX)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that submits the spooled jobs, now and whenever a job is spooled."""
        self._thread = start_duty("spool", self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop; spooled jobs stay in the spool."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def accept(self, job: Job, *, delay_s: float | None = None) -> Receipt:
        """Accept a job and return its receipt, with status ``spooled`` if the job went to the spool.

        Args:
            job: From ``make_job``.
            delay_s: Delay before it starts, in seconds.

        Raises:
            InvalidJob: The job is not valid; it was not accepted.
            PolicyDenied: The policy does not allow the job; it was not accepted.
            QueueFull: The queue is full.
            SpoolFull: The store is unavailable and the spool is full.
        """
        # While older jobs are in the spool, newer ones go there too, to keep the order.
        if self.spool.is_empty() and not self.store_unavailable.is_set():
            try:
                receipt = self.quick.submit(job, delay_s=delay_s)
            except StoreUnreachable as error:
                self.store_unavailable.set()
                log.warning("job.spooled", job_id=job.job_id, reason=str(error))
            else:
                self.store_unavailable.clear()
                self._keys.remember(job, receipt)
                return receipt
        complete = self.quick.admission.prepare(job).job
        return self._spool_once(complete, delay_s, ask_store=True)

    def accept_many(self, jobs: Sequence[Job]) -> list[Receipt]:
        """Accept jobs in few round trips and return their receipts, in order; see ``accept``.

        Args:
            jobs: From ``make_job``.

        Raises:
            InvalidJob: One of them is not valid; the store accepted none.
            PolicyDenied: The policy does not allow one of them; the store accepted none.
            QueueFull: The queue is full; the jobs for which there was room were accepted. Accepting the same
                jobs again does not duplicate them.
            SpoolFull: The store is unavailable and the spool is full; as for ``QueueFull``.
        """
        if self.spool.is_empty() and not self.store_unavailable.is_set():
            try:
                receipts = self.quick.admission.submit(jobs)
            except StoreUnreachable as error:
                self.store_unavailable.set()
                log.warning("jobs.spooled", jobs=len(jobs), reason=str(error))
            else:
                for job, receipt in zip(jobs, receipts, strict=True):
                    self._keys.remember(job, receipt)
                return receipts
        complete = [self.quick.admission.prepare(job).job for job in jobs]
        # The store is not asked for each key: duplicates are found when the jobs are submitted.
        return [self._spool_once(job, None, ask_store=False) for job in complete]

    def _spool_once(self, job: Job, delay_s: float | None, *, ask_store: bool) -> Receipt:
        if job.idempotency_key is None:
            return self._spool(job, delay_s)
        # One at a time, so that the second of two jobs with the same key gets the first's receipt.
        with self._keys.lock:
            known = self._keys.find(job.idempotency_key, ask_store=ask_store)
            return self._spool(job, delay_s) if known is None else known

    def _spool(self, job: Job, delay_s: float | None) -> Receipt:
        entry = Spooled(job=msgspec.Raw(encode_job(job)))
        if delay_s is not None:
            entry = Spooled(job=entry.job, due_s=time.time() + delay_s)
        self.spool.add(job.job_id, msgspec.json.encode(entry))
        self._wake.set()
        receipt = _spool_receipt(job)
        self._keys.remember(job, receipt)
        return receipt

    def submit_spooled(self) -> int:
        """Submit all spooled jobs in order, and return how many; 0 if another process is doing it.

        Raises:
            StoreUnreachable: The store is unavailable; the rest stays in the spool.
            QueueFull: The queue is full; the rest stays in the spool.
            StoreError: The store answered with an error; the rest stays in the spool.
            StartFailed: A refused entry cannot be quarantined; the rest stays in the spool.
        """
        submitted = 0
        with self.spool.exclusive() as ours:
            if ours:
                self.spool.remove_drafts()
            while ours:
                entries = self.spool.entries()[:_BATCH]
                if not entries:
                    return submitted
                for entry in entries:
                    try:
                        data = entry.read_bytes()
                    except FileNotFoundError:
                        # Deleted since it was listed.
                        continue
                    try:
                        job, delay_s = read_entry(data)
                        receipt = self._bridge.submit(job, delay_s=delay_s)
                    except StoreError as error:
                        # As a rule the store is at fault, for instance its version: that must not empty the
                        # spool. An entry that fails every time must not block it.
                        if self._refusals.count(entry.name) < _REFUSALS_MAX:
                            self._refusals.append(entry.name)
                            raise
                        refused = self.spool.quarantine(entry, _refusal(JobError.of(error)))
                        log.exception("spool.refused", entry=str(refused), reason=str(error))
                        continue
                    except (InvalidJob, PolicyDenied, UnknownProject) as error:
                        refused = self.spool.quarantine(entry, _refusal(JobError.of(error)))
                        log.warning("spool.refused", entry=str(refused), reason=str(error))
                        continue
                    self.store_unavailable.clear()
                    self._remove(entry, job, receipt)
                    submitted += 1
        return submitted

    def _remove(self, entry: Path, job: Job, receipt: Receipt) -> None:
        """Delete the entry of an accepted job; quarantine one that duplicates another job."""
        if not receipt.duplicate or receipt.job_id == job.job_id:
            entry.unlink()
            return
        log.warning("spool.duplicate", job_id=job.job_id, first=receipt.job_id)
        message = f"duplicate of {receipt.job_id}, which has the same idempotency key."
        self.spool.quarantine(entry, _refusal(JobError("Duplicate", message), "cancelled"))

    def _run(self) -> None:
        backoff = Backoff()
        # So that jobs of published types can be checked when the store is unavailable later.
        self.quick.admission.types.all()
        while not self._stopping.is_set():
            try:
                if self.store_unavailable.is_set():
                    # Submitting does not notice the store if another process is doing it.
                    self._bridge.store.call("PING")
                    self.store_unavailable.clear()
                if not self.spool.is_empty():
                    submitted = self.submit_spooled()
                    if submitted:
                        log.info("spool.handed_over", jobs=submitted)
            except (StoreUnreachable, StoreError, QueueFull, StartFailed) as error:
                if isinstance(error, StoreError | StartFailed):
                    log.warning("spool.not_handed_over", reason=str(error))
                backoff.wait(self._stopping)
            else:
                backoff.reset()
                self._wake.wait(_POLL_S)
                self._wake.clear()


class _IdempotencyKeys:
    """The idempotency keys in use, for the time when the store does not answer.

    Knows the keys of the jobs that this process accepted last, of the spooled jobs, and asks the store if it
    is available.

    Args:
        bridge: The store.
        spool: The spooled jobs.
        store_unavailable: Set while the store is known not to answer; it is not asked then, since each
            request would wait for its timeout.

    Attributes:
        lock: Held from ``find`` to ``remember`` when a job is spooled.
    """

    def __init__(self, bridge: Bridge, spool: Spool, store_unavailable: threading.Event) -> None:
        self._bridge = bridge
        self._spool = spool
        self._store_unavailable = store_unavailable
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self._has_read = False
        self.lock = threading.RLock()

    def remember(self, job: Job, receipt: Receipt) -> None:
        """Remember the receipt of an accepted job."""
        if job.idempotency_key is not None:
            with self.lock:
                self._receipts[job.idempotency_key] = receipt
                if len(self._receipts) > _KEYS_MAX:
                    self._receipts.popitem(last=False)

    def find(self, key: str, *, ask_store: bool) -> Receipt | None:
        """Return the receipt of the job with this key, None if none is known.

        Args:
            key: The idempotency key.
            ask_store: Ask the store too, which may take its timeout.
        """
        if not self._has_read:
            self._read_spool()
        known = self._receipts.get(key)
        if known is not None:
            return msgspec.structs.replace(known, duplicate=True)
        if not ask_store or self._store_unavailable.is_set():
            return None
        reader = self._bridge.reader
        try:
            job_id = reader.store.call("GET", reader.keys.idempotency(key))
            return None if job_id is None else reader.receipt(job_id.decode(), duplicate=True)
        except JobNotFound:
            return None
        except StoreUnreachable:
            self._store_unavailable.set()
            return None

    def _read_spool(self) -> None:
        """Remember the jobs that an earlier process spooled."""
        for entry in self._spool.entries():
            try:
                job, _ = read_entry(entry.read_bytes())
            except (FileNotFoundError, InvalidJob):
                # Submitted just now; or not readable, which is reported when it is submitted.
                continue
            self.remember(job, _spool_receipt(job))
        self._has_read = True


def _spool_receipt(job: Job) -> Receipt:
    return first_receipt(
        job, status=SPOOLED, at_ms=time.time_ns() // 1_000_000, input_sha256=payload_sha256(job)
    )


def _refusal(error: JobError, status: Literal["failed", "cancelled"] = "failed") -> bytes:
    return msgspec.json.encode(Refusal(status, time.time_ns() // 1_000_000, error))
