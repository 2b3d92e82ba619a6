"""Hands claimed files in as jobs, in batches; what does not work at once is tried again, but not for ever."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingress.core.acceptance import Acceptance
from ingress.station.claims import Claim, Claims
from ingress.station.completion import Endings
from ingress.station.jobs import content_key, job_of, note_of, read_through
from ingress.station.stability import is_being_written
from middleware.job.schema import Job
from ops.backoff import exponential_s
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

#: Files that are handed in together: enough to share a round trip, few enough for the first to start soon.
BATCH = 100
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

log = get_logger(__name__)


def wait_s(tries: int) -> float:
    """Return the wait after a number of failures: it doubles each time, up to one minute."""
    return exponential_s(tries, first_s=FIRST_WAIT_S, max_s=LONGEST_WAIT_S)


#: The machine's doing, not the file's: no room, a disk that takes nothing, too little memory or descriptors.
_HOST = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
)


def is_hosts_doing(error: BaseException) -> bool:
    """Tell whether what went wrong with a file is not about that file: then it waits, and is not refused."""
    return isinstance(error, OSError) and error.errno in _HOST


class _Waiting(NamedTuple):
    """A claim that is tried again.

    ``waits`` counts how often it was put off, which makes the pauses longer; ``faults`` how often that was
    its own fault, which is bounded.
    """

    waits: int
    faults: int
    due_s: float
    after: str
    reason: str


class Entrance:
    """Hands claims in.

    Args:
        acceptance: Where the jobs go.
        claims: The claimed files.
        settings: How often is tried, and what is done with the same content.
        pulse: Called now and then while files are read.
        clock: Monotonic seconds.

    Attributes:
        endings: Follows the jobs; set before the first claim is handed in.
    """

    def __init__(
        self,
        acceptance: Acceptance,
        claims: Claims,
        settings: StationSettings,
        pulse: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acceptance = acceptance
        self._claims = claims
        self._settings = settings
        self._pulse = pulse
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self.endings: Endings

    def hand_in(self, claims: Iterable[Claim]) -> None:
        """Read files and hand them in.

        None is lost, whatever happens: its claim stays until its job has ended.
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

    def again(self, job_id: str, first: str) -> None:
        """Have a claim handed in as new content; from any thread.

        Args:
            job_id: Of the claim.
            first: The job that had its content before and has left nothing.
        """
        with self._lock:
            before = self._waiting.get(job_id)
            waits, faults = (0, 0) if before is None else (before.waits, before.faults)
            self._waiting[job_id] = _Waiting(
                waits, faults, self._clock(), first, "its first job left nothing"
            )

    def retry_due(self) -> float | None:
        """Hand in again what is due.

        Returns:
            After how many seconds the next one is due; None if nothing waits.
        """
        now_s = self._clock()
        with self._lock:
            due = [job_id for job_id, item in self._waiting.items() if item.due_s <= now_s]
        for at in range(0, len(due), BATCH):
            claims: list[Claim] = []
            for job_id in due[at : at + BATCH]:
                claim = self._claims.load(job_id)
                if claim is None:
                    self._forget(job_id)
                else:
                    claims.append(claim)
            self.hand_in(claims)
        with self._lock:
            left = [item.due_s for item in self._waiting.values()]
        return max(0.0, min(left) - self._clock()) if left else None

    def is_waiting(self, job_id: str) -> bool:
        """Tell whether a claim is to be tried again."""
        with self._lock:
            return job_id in self._waiting

    @property
    def waiting(self) -> int:
        """How many claims are to be tried again."""
        with self._lock:
            return len(self._waiting)

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._waiting.pop(job_id, None)

    def _after(self, job_id: str) -> str:
        with self._lock:
            known = self._waiting.get(job_id)
        return "" if known is None else known.after

    def _prepare(self, claim: Claim) -> Job | None:
        try:
            if is_being_written(str(claim.path)):
                # However long that takes: it is not the file's fault.
                self._put_off(claim.job_id, f"{claim.name!r} is still written to.", bounded=False)
                return None
            content = read_through(claim, self._pulse)
            key = content_key(self._settings, claim, content.sha256, after=self._after(claim.job_id))
            return job_of(claim, content, note_of(claim), key)
        except FileNotFoundError:
            # Its job has ended since, or somebody has taken it back.
            self._forget(claim.job_id)
            return None
        except (OSError, InvalidJob) as error:
            bounded = not is_hosts_doing(error)
            self._put_off(claim.job_id, f"{claim.name!r} cannot be taken: {error}.", bounded=bounded)
            return None

    def _submit(self, prepared: list[tuple[Claim, Job]]) -> None:
        self._pulse()
        try:
            receipts = self._acceptance.accept_many([job for _, job in prepared])
        except (InvalidJob, PolicyDenied) as error:
            if len(prepared) == 1:
                self._refuse(prepared[0][0].job_id, str(error))
                return
            # One spoils the batch: each for itself, then.
            for item in prepared:
                self._submit([item])
            return
        except (QueueFull, SpoolFull, StoreError, StoreUnreachable) as error:
            for claim, _ in prepared:
                self._put_off(claim.job_id, error.message, bounded=False)
            return
        for (claim, _), receipt in zip(prepared, receipts, strict=True):
            if receipt.job_id == claim.job_id:
                self._forget(claim.job_id)
                continue
            self._answered(claim.job_id, receipt.job_id)

    def _answered(self, job_id: str, first: str) -> None:
        self._forget(job_id)
        try:
            self.endings.answered_by(job_id, first)
        except StoreUnreachable as error:
            # It is noted; the next look settles it.
            log.info("station.same_content_later", job_id=job_id, first=first, reason=str(error))

    def _put_off(self, job_id: str, reason: str, *, bounded: bool = True) -> None:
        """Try a claim again later; one whose own fault it is goes to ``failed/`` in the end."""
        with self._lock:
            before = self._waiting.get(job_id)
            waits = 1 if before is None else before.waits + 1
            faults = (0 if before is None else before.faults) + (1 if bounded else 0)
            after = "" if before is None else before.after
            self._waiting[job_id] = _Waiting(waits, faults, self._clock() + wait_s(waits), after, reason)
        log.warning("station.put_off", job_id=job_id, tries=faults, reason=reason)
        if bounded and faults >= self._settings.tries:
            self._refuse(job_id, f"{reason} It was tried {faults} times.")

    def _refuse(self, job_id: str, reason: str) -> None:
        refuse(self._claims, job_id, reason)
        self._forget(job_id)


def refuse(claims: Claims, job_id: str, reason: str) -> None:
    """Lay a claim that becomes no job into ``failed/``.

    Args:
        claims: The claimed files.
        job_id: Of the claim.
        reason: Why, a sentence or two.
    """
    text = f"{reason}\nTo try again, move the file back into the drop folder.\n"
    try:
        place = claims.fail(job_id, text)
    except OSError as error:
        log.error("station.stuck", job_id=job_id, reason=reason, error=str(error))  # noqa: TRY400 (no surprise)
        return
    log.warning("station.refused", job_id=job_id, place=os.fspath(place) if place else "", reason=reason)
