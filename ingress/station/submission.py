"""Submit claimed files as jobs, in batches; retry what fails, within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingress.core.acceptance import Acceptance
from ingress.station.claiming import refuse
from ingress.station.claims import Claim, Claims
from ingress.station.completion import ClaimCompletion
from ingress.station.jobs import content_key, make_ingest_job, read_file, read_note
from ingress.station.retry import is_host_error, wait_s
from ingress.station.stability import is_being_written
from middleware.job.schema import Job
from ops.errors import (
    InvalidJob,
    PolicyDenied,
    QueueFull,
    SpoolFull,
    StoreError,
    StoreUnreachable,
)
from ops.logs import get_logger
from ops.settings.station import StationSettings

#: Files per batch: enough to share a round trip, few enough for the first job to start soon.
BATCH = 100

log = get_logger(__name__)


class _Retry(NamedTuple):
    """A claim that is to be submitted again.

    Attributes:
        failures: Failed attempts, which determine the wait.
        faults: Those of them that are due to the file, which are limited.
        due_s: When to submit it, on the monotonic clock.
        after: Id of an earlier job with the same content that has left no result; empty if there is none.
        reason: Why it was not submitted.
    """

    failures: int
    faults: int
    due_s: float
    after: str
    reason: str


class ClaimSubmitter:
    """Submits claims as jobs.

    Args:
        acceptance: Accepts the jobs.
        claims: The claimed files.
        settings: Number of attempts, and what to do with content that was submitted before.
        completion: Settles claims whose content was submitted before.
        pulse: Called at intervals while files are read.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        acceptance: Acceptance,
        claims: Claims,
        settings: StationSettings,
        completion: ClaimCompletion,
        *,
        pulse: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acceptance = acceptance
        self._claims = claims
        self._settings = settings
        self._completion = completion
        self._pulse = pulse
        self._clock = clock
        self._lock = threading.Lock()
        self._retries: dict[str, _Retry] = {}

    def submit(self, claims: Iterable[Claim]) -> None:
        """Read files and submit them in batches.

        A claim whose job is not accepted stays, and is submitted again by ``submit_due``.
        """
        prepared: list[tuple[Claim, Job]] = []
        for claim in claims:
            job = self._prepare(claim)
            if job is not None:
                prepared.append((claim, job))
            if len(prepared) >= BATCH:
                self._submit(prepared)
                prepared = []
        if prepared:
            self._submit(prepared)

    def submit_due(self) -> float | None:
        """Submit the claims whose retry is due, and those whose original has left no result.

        Returns:
            Seconds until the next retry; None if there is none.
        """
        for job_id, original in self._completion.take_resubmissions().items():
            self._resubmit_after(job_id, original)
        now_s = self._clock()
        with self._lock:
            due = [job_id for job_id, item in self._retries.items() if item.due_s <= now_s]
        for at in range(0, len(due), BATCH):
            claims: list[Claim] = []
            for job_id in due[at : at + BATCH]:
                claim = self._claims.load(job_id)
                if claim is None:
                    self._forget(job_id)
                else:
                    claims.append(claim)
            self.submit(claims)
        with self._lock:
            left = [item.due_s for item in self._retries.values()]
        return max(0.0, min(left) - self._clock()) if left else None

    def is_waiting(self, job_id: str) -> bool:
        """Return whether a claim waits for its next attempt."""
        with self._lock:
            return job_id in self._retries

    @property
    def waiting(self) -> int:
        """Number of claims that wait for their next attempt."""
        with self._lock:
            return len(self._retries)

    def _resubmit_after(self, job_id: str, original: str) -> None:
        with self._lock:
            before = self._retries.get(job_id)
            failures, faults = (0, 0) if before is None else (before.failures, before.faults)
            self._retries[job_id] = _Retry(
                failures, faults, self._clock(), original, f"job {original} with this content left no result"
            )

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._retries.pop(job_id, None)

    def _after(self, job_id: str) -> str:
        with self._lock:
            known = self._retries.get(job_id)
        return "" if known is None else known.after

    def _prepare(self, claim: Claim) -> Job | None:
        try:
            if is_being_written(str(claim.path)):
                self._retry_later(claim.job_id, f"{claim.name!r} is still being written.", is_fault=False)
                return None
            content = read_file(claim, self._pulse)
            key = content_key(self._settings, claim, content.sha256, after=self._after(claim.job_id))
            return make_ingest_job(claim, content, read_note(claim), key)
        except FileNotFoundError:
            # Its job has finished meanwhile, or a user has removed the file.
            self._forget(claim.job_id)
            return None
        except (OSError, InvalidJob) as error:
            is_fault = not is_host_error(error)
            self._retry_later(
                claim.job_id, f"{claim.name!r} cannot be submitted: {error}.", is_fault=is_fault
            )
            return None

    def _submit(self, prepared: list[tuple[Claim, Job]]) -> None:
        self._pulse()
        try:
            receipts = self._acceptance.accept_many([job for _, job in prepared])
        except (InvalidJob, PolicyDenied) as error:
            if len(prepared) == 1:
                self._refuse(prepared[0][0].job_id, str(error))
                return
            # One file of the batch is refused; submit each by itself to find it.
            for item in prepared:
                self._submit([item])
            return
        except (QueueFull, SpoolFull, StoreError, StoreUnreachable) as error:
            for claim, _ in prepared:
                self._retry_later(claim.job_id, error.message, is_fault=False)
            return
        for (claim, _), receipt in zip(prepared, receipts, strict=True):
            if receipt.job_id == claim.job_id:
                self._forget(claim.job_id)
                continue
            self._add_duplicate(claim.job_id, receipt.job_id)

    def _add_duplicate(self, job_id: str, original: str) -> None:
        self._forget(job_id)
        try:
            self._completion.add_duplicate(job_id, original)
        except StoreUnreachable as error:
            log.info("station.same_content_later", job_id=job_id, first=original, reason=str(error))

    def _retry_later(self, job_id: str, reason: str, *, is_fault: bool) -> None:
        """Schedule another attempt; after ``tries`` faults of the file itself move it to ``failed/``."""
        with self._lock:
            before = self._retries.get(job_id)
            failures = 1 if before is None else before.failures + 1
            faults = (0 if before is None else before.faults) + (1 if is_fault else 0)
            after = "" if before is None else before.after
            due_s = self._clock() + wait_s(failures)
            self._retries[job_id] = _Retry(failures, faults, due_s, after, reason)
        log.warning("station.put_off", job_id=job_id, tries=faults, reason=reason)
        if is_fault and faults >= self._settings.tries:
            self._refuse(job_id, f"{reason} Attempts: {faults}.")

    def _refuse(self, job_id: str, reason: str) -> None:
        refuse(self._claims, job_id, reason)
        self._forget(job_id)
