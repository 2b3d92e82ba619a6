"""Submit claimed files as jobs, in batches; retry what fails, within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingress.core.acceptance import Acceptance
from ingress.core.file_claims import Claim
from ingress.core.file_jobs import ContentIndex, ReadClaim, read_claim, read_note
from ingress.station.claiming import refuse
from ingress.station.claims import Claims
from ingress.station.retry import is_host_error, wait_s
from ingress.station.stability import is_being_written
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
        reason: Why it was not submitted.
    """

    failures: int
    faults: int
    due_s: float
    reason: str


class ClaimSubmitter:
    """Submits claims as jobs.

    Args:
        acceptance: Accepts the jobs.
        claims: The claimed files.
        settings: Number of attempts.
        index: Builds the jobs.
        pulse: Called at intervals while files are read.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        acceptance: Acceptance,
        claims: Claims,
        settings: StationSettings,
        index: ContentIndex,
        *,
        pulse: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acceptance = acceptance
        self._claims = claims
        self._settings = settings
        self._index = index
        self._pulse = pulse
        self._clock = clock
        self._lock = threading.Lock()
        self._retries: dict[str, _Retry] = {}

    def submit(self, claims: Iterable[Claim]) -> None:
        """Read files and submit them in batches.

        A claim whose job is not accepted stays, and is submitted again by ``submit_due``.
        """
        prepared: list[ReadClaim] = []
        for claim in claims:
            read = self._read(claim)
            if read is not None:
                prepared.append(read)
            if len(prepared) >= BATCH:
                self._submit(prepared)
                prepared = []
        if prepared:
            self._submit(prepared)

    def submit_due(self) -> float | None:
        """Submit the claims whose retry is due.

        Returns:
            Seconds until the next retry; None if there is none.
        """
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

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._retries.pop(job_id, None)

    def _read(self, claim: Claim) -> ReadClaim | None:
        try:
            if claim.path.is_file() and not claim.path.is_symlink() and is_being_written(str(claim.path)):
                self._retry_later(claim.job_id, f"{claim.name!r} is still being written.", is_fault=False)
                return None
            return ReadClaim(claim, read_claim(claim, self._pulse), read_note(claim))
        except FileNotFoundError:
            # Its job has finished meanwhile, or a user has removed the file.
            self._forget(claim.job_id)
            return None
        except OSError as error:
            is_fault = not is_host_error(error)
            self._retry_later(
                claim.job_id, f"{claim.name!r} cannot be submitted: {error}.", is_fault=is_fault
            )
            return None

    def _submit(self, prepared: list[ReadClaim]) -> None:
        self._pulse()
        try:
            self._acceptance.accept_many(self._index.jobs(prepared))
        except (InvalidJob, PolicyDenied) as error:
            if len(prepared) == 1:
                refuse(self._claims, prepared[0].claim.job_id, str(error))
                self._forget(prepared[0].claim.job_id)
                return
            # One file of the batch is refused; submit each by itself to find it.
            for item in prepared:
                self._submit([item])
            return
        except (QueueFull, SpoolFull, StoreError, StoreUnreachable) as error:
            for item in prepared:
                self._retry_later(item.claim.job_id, error.message, is_fault=False)
            return
        for item in prepared:
            self._forget(item.claim.job_id)

    def _retry_later(self, job_id: str, reason: str, *, is_fault: bool) -> None:
        """Schedule another attempt; after ``tries`` faults of the file itself move it to ``failed/``."""
        with self._lock:
            before = self._retries.get(job_id)
            failures = 1 if before is None else before.failures + 1
            faults = (0 if before is None else before.faults) + (1 if is_fault else 0)
            due_s = self._clock() + wait_s(failures)
            self._retries[job_id] = _Retry(failures, faults, due_s, reason)
        log.warning("station.put_off", job_id=job_id, tries=faults, reason=reason)
        if is_fault and faults >= self._settings.tries:
            refuse(self._claims, job_id, f"{reason} Attempts: {faults}.")
            self._forget(job_id)
