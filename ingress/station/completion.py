"""Settle claims when their jobs finish: remove the file, or move it to ``failed/`` with the reason.

Jobs are followed by the store's events. A look at all claims, at the start and at intervals, finds those
whose event was missed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ingress.core.bridge import Bridge
from ingress.station.claims import Claims
from middleware.job.records import JobEvent, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import JobNotFound
from ops.logs import get_logger
from ops.threads import start_duty

_BATCH = 500
_IDLE_S = 1.0

log = get_logger(__name__)


class ClaimCompletion:
    """Follows the jobs of all claims to their final states.

    Args:
        bridge: Bridge of the jobs.
        claims: The claimed files.

    Attributes:
        completed: Claims whose files have been processed since the start.
    """

    def __init__(self, bridge: Bridge, claims: Claims) -> None:
        self._bridge = bridge
        self._claims = claims
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.completed = 0

    def start(self) -> None:
        """Start to follow events."""
        self._thread = start_duty("claim-completion", self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop following events."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * _IDLE_S)

    def settle(self, job_ids: Iterable[str]) -> list[str]:
        """Settle all claims whose jobs have finished.

        Args:
            job_ids: Job ids of the claims.

        Returns:
            Those of them that the store does not know.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        unknown: list[str] = []
        wanted = list(job_ids)
        for at in range(0, len(wanted), _BATCH):
            unknown += self._settle_finished(wanted[at : at + _BATCH])
        return unknown

    def _settle_finished(self, job_ids: list[str]) -> list[str]:
        keys = self._bridge.reader.keys
        replies = self._bridge.reader.read([("HGET", keys.job(job_id), "status") for job_id in job_ids])
        statuses = [None if reply is None else reply.decode() for reply in replies]
        for job_id, status in zip(job_ids, statuses, strict=True):
            if status in FINAL:
                self._finish(job_id, status)
        return [job_id for job_id, status in zip(job_ids, statuses, strict=True) if status is None]

    def _run(self) -> None:
        self._bridge.follower.watch_events(self._on_events, stopping=self._stopping, idle_s=_IDLE_S)

    def _on_events(self, events: list[JobEvent]) -> None:
        for event in events:
            if event.kind == "state" and event.status in FINAL:
                self._finish(event.job_id, event.status)

    def _finish(self, job_id: str, status: str) -> None:
        """Settle the claim of a finished job."""
        try:
            if status == State.COMPLETED:
                if self._claims.discard(job_id):
                    self.completed += 1
            elif self._claims.holds(job_id):
                self._fail(job_id)
        except (OSError, JobNotFound) as error:
            # The claim stays; ``settle`` tries again.
            log.warning("station.not_settled", job_id=job_id, reason=str(error))

    def _fail(self, job_id: str) -> None:
        record = self._bridge.reader.job(job_id)
        place = self._claims.fail(job_id, _reason(record))
        if place is not None:
            log.warning("station.failed", job_id=job_id, place=str(place), reason=record.reason)


def _reason(record: JobRecord) -> str:
    """Return the text of the reason file of a job that did not succeed."""
    lines = [f"Job {record.job_id} {record.status} at {record.completed_at}.", record.reason]
    if record.error is not None:
        lines += [record.error.message, record.error.remedy]
    lines.append(f"To try again: 3ox retry {record.job_id}")
    return "".join(f"{line}\n" for line in lines if line)
