"""What becomes of a claimed file when its job has ended: removed, or laid into ``failed/`` with the reason.

The events of the store tell when; a look at all claims, at the start and now and then, finds what no event
told of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

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


class Endings:
    """Follows the jobs of all claims to their end.

    Args:
        bridge: Where the jobs are.
        claims: The claimed files.
        again: Called with the id of a claim that has to be handed in anew, and the id of the job that had
            its content before but is of no use.

    Attributes:
        taken: How many files have left the drop folder since the start.
    """

    def __init__(self, bridge: Bridge, claims: Claims, again: Callable[[str, str], None]) -> None:
        self._bridge = bridge
        self._claims = claims
        self._again = again
        self._lock = threading.Lock()
        self._same: dict[str, set[str]] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.taken = 0

    def start(self) -> None:
        """Begin to listen."""
        self._thread = start_duty("endings", self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop to listen."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * _IDLE_S)

    def answered_by(self, job_id: str, first: str) -> None:
        """Note that a claim has the content of another job, whose end is then its end too."""
        with self._lock:
            self._same.setdefault(first, set()).add(job_id)
        self._look_at([first])

    def is_answered(self, job_id: str) -> bool:
        """Tell whether a claim waits for the job that had its content before."""
        with self._lock:
            return any(job_id in waiting for waiting in self._same.values())

    def look(self, ids: Iterable[str]) -> list[str]:
        """Settle all claims whose jobs have ended.

        Args:
            ids: Of claims.

        Returns:
            Those whose jobs the store does not know.

        Raises:
            StoreUnreachable: The store is away.
        """
        unknown: list[str] = []
        with self._lock:
            firsts = list(self._same)
        self._look_at(firsts)
        wanted = list(ids)
        for at in range(0, len(wanted), _BATCH):
            unknown += self._look_at(wanted[at : at + _BATCH])
        return unknown

    def _look_at(self, ids: list[str]) -> list[str]:
        keys = self._bridge.reader.keys
        replies = self._bridge.reader.read([("HGET", keys.job(job_id), "status") for job_id in ids])
        statuses = [None if reply is None else reply.decode() for reply in replies]
        for job_id, status in zip(ids, statuses, strict=True):
            if status in FINAL:
                self._ended(job_id, status)
        return [job_id for job_id, status in zip(ids, statuses, strict=True) if status is None]

    def _run(self) -> None:
        self._bridge.follower.watch_events(self._on_events, stopping=self._stopping, idle_s=_IDLE_S)

    def _on_events(self, events: list[JobEvent]) -> None:
        for event in events:
            if event.kind == "state" and event.status in FINAL:
                self._ended(event.job_id, event.status)

    def _ended(self, job_id: str, status: str) -> None:
        """Settle a claim, and those that its job answers, if there are any."""
        with self._lock:
            same = sorted(self._same.get(job_id, ()))
        try:
            if status == State.COMPLETED:
                if self._claims.discard(job_id):
                    self.taken += 1
            elif self._claims.holds(job_id):
                self._fail(job_id)
            for other in same:
                self._settle_same(other, job_id)
        except (OSError, JobNotFound) as error:
            # The claim stays; the next look tries again.
            log.warning("station.not_tidied", job_id=job_id, reason=str(error))
            return
        with self._lock:
            self._same.pop(job_id, None)

    def _settle_same(self, job_id: str, first: str) -> None:
        if self._has_result(first):
            if self._claims.discard(job_id):
                self.taken += 1
                log.info("station.same_content", job_id=job_id, first=first)
        else:
            self._again(job_id, first)

    def _has_result(self, first: str) -> bool:
        """Tell whether the job that had the content before has left a file, and it is still there."""
        try:
            record = self._bridge.reader.job(first)
        except JobNotFound:
            return False
        result: Any = record.result
        if record.status != State.COMPLETED or not isinstance(result, dict):
            return False
        place = self._bridge.loaded.workspace.home / str(result.get("path", ""))
        try:
            return place.is_file() and place.stat().st_size == result.get("size_bytes")
        except OSError:
            return False

    def _fail(self, job_id: str) -> None:
        record = self._bridge.reader.job(job_id)
        place = self._claims.fail(job_id, _reason(record))
        if place is not None:
            log.warning("station.failed", job_id=job_id, place=str(place), reason=record.reason)


def _reason(record: JobRecord) -> str:
    """Write the reason file of a job that did not succeed."""
    lines = [f"The job {record.job_id} {record.status} at {record.completed_at}.", record.reason]
    if record.error is not None:
        lines += [record.error.message, record.error.remedy]
    lines.append(f"To try again: 3ox retry {record.job_id}")
    return "".join(f"{line}\n" for line in lines if line)
