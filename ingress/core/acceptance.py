"""Accepts jobs for a daemon: into the queue, or into the spool while the store is away.

Either way the caller has its receipt and the job is safe. What was spooled is handed over in order, each job
once: it keeps its id, and the store knows an id that it has taken before. That holds for a try that was given
up too: a store that stood still may carry it out when it goes on, and the hand-over finds the job there.
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

_HAND_OVER_BATCH = 50
#: What we spool ourselves wakes the hand-over; so often it looks for what other processes have spooled.
_LOOK_S = 5.0
#: Before a job goes to the spool a store that stands still is waited for so long: somebody wants the receipt.
ACCEPT_S = 1.0
#: So often the store may answer a hand-over with an error; with the pauses in between that is some minutes.
_REFUSALS_MAX = 30
#: Idempotency keys that a daemon remembers for an outage: the last ones.
_KEYS_MAX = 10_000

log = get_logger(__name__)


class Acceptance:
    """Accepts jobs and hands over the spool; one per daemon.

    Args:
        bridge: Where the jobs go.

    Attributes:
        away: Set while the store is known not to answer, by whoever finds out. Nobody waits for it then: what
            is accepted goes to the spool at once, and the hand-over tells when it is back.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        loaded = bridge.loaded
        # The hand-over has more patience: nobody waits for it, and a slow store is to take what it can.
        accept_s = min(ACCEPT_S, bridge.store.timeout_s)
        self._prompt = Bridge(loaded, store=Store.open(loaded, timeout_s=accept_s))
        self._prompt.admission.follow_settings(bridge.admission.latest)
        self.spool = Spool(loaded.workspace.spool_dir, max_bytes=loaded.settings.spool_max_bytes)
        self.away = threading.Event()
        self._keys = _Keys(self._prompt, self.spool, self.away)
        self._refusals: deque[str] = deque(maxlen=_REFUSALS_MAX)
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
            PolicyDenied: The policy does not allow it; nothing is kept.
            QueueFull: Too many jobs wait.
            SpoolFull: The store is away and the spool takes no more.
        """
        # While older jobs are in the spool, newer ones queue up behind them: the order is kept.
        if self.spool.is_empty() and not self.away.is_set():
            try:
                receipt = self._prompt.submit(job, delay_s=delay_s)
            except StoreUnreachable as error:
                self.away.set()
                log.warning("job.spooled", job_id=job.job_id, reason=str(error))
            else:
                self.away.clear()
                self._keys.remember(job, receipt)
                return receipt
        complete = self._bridge.admission.prepare(job).job
        return self._spool_once(complete, delay_s, ask_store=True)

    def accept_many(self, jobs: Sequence[Job]) -> list[Receipt]:
        """Take jobs in few round trips; see ``accept``.

        Args:
            jobs: From ``make_job``.

        Returns:
            Their receipts, in order.

        Raises:
            InvalidJob: One of them does not fit; into the store none was taken.
            PolicyDenied: The policy does not allow one of them; the same holds.
            QueueFull: Too many jobs wait; those for which there was room were taken, and the same again do
                no harm.
            SpoolFull: The store is away and the spool takes no more; the same holds.
        """
        if self.spool.is_empty() and not self.away.is_set():
            try:
                receipts = self._prompt.admission.submit(jobs)
            except StoreUnreachable as error:
                self.away.set()
                log.warning("jobs.spooled", jobs=len(jobs), reason=str(error))
            else:
                for job, receipt in zip(jobs, receipts, strict=True):
                    self._keys.remember(job, receipt)
                return receipts
        complete = [self._bridge.admission.prepare(job).job for job in jobs]
        # The store is not asked for each of them what it knows: that is settled when it takes them over.
        return [self._spool_once(job, None, ask_store=False) for job in complete]

    def _spool_once(self, job: Job, delay_s: float | None, *, ask_store: bool) -> Receipt:
        if job.idempotency_key is None:
            return self._spool(job, delay_s)
        # One at a time: of two commands with the same key the second is answered with the first's receipt.
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

    def hand_over(self) -> int:
        """Hand over everything in the spool, in order.

        Returns:
            How many jobs were handed over; 0 if another process is at it.

        Raises:
            StoreUnreachable: The store is away; what was not handed over stays.
            QueueFull: The same for a full queue.
            StoreError: The store answers with an error; the same.
            StartFailed: What was refused cannot be moved out of the way; the same.
        """
        handed = 0
        with self.spool.exclusive() as ours:
            if ours:
                self.spool.remove_drafts()
            while ours:
                entries = self.spool.entries()[:_HAND_OVER_BATCH]
                if not entries:
                    return handed
                for entry in entries:
                    try:
                        data = entry.read_bytes()
                    except FileNotFoundError:
                        # Somebody has deleted it since it was listed.
                        continue
                    try:
                        job, delay_s = read_entry(data)
                        receipt = self._bridge.submit(job, delay_s=delay_s)
                    except StoreError as error:
                        # The store's fault as a rule, one of the wrong version for instance: that must not
                        # empty the spool. An entry at which it fails again and again must not block it.
                        if self._refusals.count(entry.name) < _REFUSALS_MAX:
                            self._refusals.append(entry.name)
                            raise
                        aside = self.spool.quarantine(entry, _why(JobError.of(error)))
                        log.exception("spool.refused", entry=str(aside), reason=str(error))
                        continue
                    except (InvalidJob, PolicyDenied, UnknownProject) as error:
                        aside = self.spool.quarantine(entry, _why(JobError.of(error)))
                        log.warning("spool.refused", entry=str(aside), reason=str(error))
                        continue
                    self.away.clear()
                    self._let_go(entry, job, receipt)
                    handed += 1
        return handed

    def _let_go(self, entry: Path, job: Job, receipt: Receipt) -> None:
        """Delete an entry that the store has; whoever asks for one that was not needed is to be told so."""
        if not receipt.duplicate or receipt.job_id == job.job_id:
            entry.unlink()
            return
        log.warning("spool.duplicate", job_id=job.job_id, first=receipt.job_id)
        said = f"its idempotency key stands for {receipt.job_id}, which was taken instead."
        self.spool.quarantine(entry, _why(JobError("Duplicate", said), "cancelled"))

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                if self.away.is_set():
                    # The hand-over does not tell that it is back when another process is at it.
                    self._bridge.store.call("PING")
                    self.away.clear()
                if not self.spool.is_empty():
                    handed = self.hand_over()
                    if handed:
                        log.info("spool.handed_over", jobs=handed)
            except (StoreUnreachable, StoreError, QueueFull, StartFailed) as error:
                if isinstance(error, StoreError | StartFailed):
                    log.warning("spool.not_handed_over", reason=str(error))
                backoff.wait(self._stopping)
            else:
                backoff.reset()
                self._wake.wait(_LOOK_S)
                self._wake.clear()


class _Keys:
    """Which idempotency keys were taken, for the time when the store cannot say it.

    What this process took last, what lies in the spool, and the store itself if it is back already.

    Args:
        bridge: The store.
        spool: Where jobs lie in the meantime.
        away: Set while the store is known not to answer: it is not asked then, since each request of a door
            would wait for its time-out, one after the other.

    Attributes:
        lock: To be held from ``find`` to ``remember`` by whoever spools.
    """

    def __init__(self, bridge: Bridge, spool: Spool, away: threading.Event) -> None:
        self._bridge = bridge
        self._spool = spool
        self._away = away
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self._has_read = False
        self.lock = threading.RLock()

    def remember(self, job: Job, receipt: Receipt) -> None:
        """Note the receipt of a job that was taken."""
        if job.idempotency_key is not None:
            with self.lock:
                self._receipts[job.idempotency_key] = receipt
                if len(self._receipts) > _KEYS_MAX:
                    self._receipts.popitem(last=False)

    def find(self, key: str, *, ask_store: bool) -> Receipt | None:
        """Give the receipt of the job that this key stands for, if one is known.

        Args:
            key: The idempotency key.
            ask_store: Ask the store too, which may cost its time-out.
        """
        if not self._has_read:
            self._read_spool()
        known = self._receipts.get(key)
        if known is not None:
            return msgspec.structs.replace(known, duplicate=True)
        if not ask_store or self._away.is_set():
            return None
        reader = self._bridge.reader
        try:
            job_id = reader.store.call("GET", reader.keys.idempotency(key))
            return None if job_id is None else reader.receipt(job_id.decode(), duplicate=True)
        except JobNotFound:
            return None
        except StoreUnreachable:
            self._away.set()
            return None

    def _read_spool(self) -> None:
        """Read what an earlier process left there; its answers hold."""
        for entry in self._spool.entries():
            try:
                job, _ = read_entry(entry.read_bytes())
            except (FileNotFoundError, InvalidJob):
                # Handed over at this moment; or of no use, which the hand-over says.
                continue
            self.remember(job, _spool_receipt(job))
        self._has_read = True


def _spool_receipt(job: Job) -> Receipt:
    return first_receipt(
        job, status=SPOOLED, at_ms=time.time_ns() // 1_000_000, input_sha256=payload_sha256(job)
    )


def _why(error: JobError, status: Literal["failed", "cancelled"] = "failed") -> bytes:
    return msgspec.json.encode(Refusal(status, time.time_ns() // 1_000_000, error))
