"""Fires what is due: each run once, in order, late ones and missed ones by their schedule's policy.

Up to when the runs of a schedule have been treated stands in the store, and only who leads may write it
(the fence in ``lead.lua``). A run is dispatched first and noted afterwards; a crash in between, or a leader
that was taken for dead and comes back, dispatches it again and finds it known by its id and its idempotency
key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ingress.core.schedule_timing import runs_between
from ingress.core.schedules import MARKS_KEY, SKIP_LATEST_S, Schedule, ScheduleMark, read_marks
from middleware.broker.leadership import Leadership, Term
from middleware.job.records import utc
from ops.errors import InvalidJob, JobNotFound, PolicyDenied, StoreUnreachable, UnknownProject
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.core.bridge import Bridge

#: How many runs of a schedule are treated before the lease is renewed and the others have their turn.
_BATCH = 50
#: How many run times are worked out in one go.
_LOOK_MAX = 5_000
#: A mark further in the future than this was written while the store's clock was wrong.
_AHEAD_MS = 3_600_000
#: A skipped run is cancelled at once; were that to fail, it would be tried again long before this.
_SKIPPED_DELAY_S = 365 * 86_400.0

log = get_logger(__name__)


class Firing:
    """Fires the runs of all schedules; only while it leads.

    Args:
        bridge: Takes the jobs.
        leadership: Whose fence protects the marks.
        catch_up_max: Of the missed runs of a schedule, so many are treated one by one.
    """

    def __init__(self, bridge: Bridge, leadership: Leadership, *, catch_up_max: int) -> None:
        self._bridge = bridge
        self._leadership = leadership
        self._catch_up_max = catch_up_max
        self._marks: dict[str, ScheduleMark] = {}
        self.fired = 0
        self.skipped = 0

    def use(self, bridge: Bridge, *, catch_up_max: int) -> None:
        """Go on with other settings."""
        self._bridge = bridge
        self._catch_up_max = catch_up_max

    def read_marks(self) -> None:
        """Read how far all schedules have come: whoever led before may have gone on.

        Raises:
            StoreUnreachable: The store is away.
        """
        self._marks = read_marks(self._bridge.store, self._bridge.reader.keys.prefix)

    def forget_others(self, term: Term, schedules: list[Schedule]) -> None:
        """Drop the marks of schedules that are gone; one that comes back begins anew."""
        gone = sorted(self._marks.keys() - {schedule.id for schedule in schedules})
        if gone and self._leadership.forget(term, MARKS_KEY, gone):
            for name in gone:
                del self._marks[name]

    def fire(self, term: Term, schedule: Schedule, now_ms: int) -> int | None:
        """Treat the runs of a schedule that are due, at most some of them.

        Args:
            term: Under which we lead.
            schedule: Which one.
            now_ms: The store's time.

        Returns:
            When its next run is due; None if never.

        Raises:
            StoreUnreachable: The store is away; what was not noted is treated again.
            QueueFull: The same for a full queue.
        """
        mark = self._marks.get(schedule.id)
        if mark is None or mark.timing != schedule.fingerprint:
            mark = self._note(term, schedule, now_ms)
        elif mark.done_ms > now_ms + _AHEAD_MS:
            log.warning("schedule.clock_was_wrong", schedule=schedule.id, done_until=utc(mark.done_ms))
            mark = self._note(term, schedule, now_ms)
        if mark is None:
            return None
        due = runs_between(schedule.timing, mark.done_ms, now_ms, _LOOK_MAX)
        if len(due) > self._catch_up_max:
            # Some time in the past; the newest ones are treated singly, here or in a later round.
            older = due[: len(due) - self._catch_up_max]
            self._skip_many(schedule, older)
            self._note(term, schedule, older[-1])
            return now_ms
        for run_ms in due[:_BATCH]:
            self._treat(schedule, run_ms, now_ms)
        if due:
            mark = self._note(term, schedule, due[:_BATCH][-1])
        return None if mark is None else schedule.timing.next_ms(mark.done_ms)

    def _note(self, term: Term, schedule: Schedule, done_ms: int) -> ScheduleMark | None:
        """Note how far a schedule has come; gives None if we lead no more."""
        mark = ScheduleMark(done_ms, schedule.fingerprint)
        if not self._leadership.note(term, MARKS_KEY, {schedule.id: msgspec.json.encode(mark)}):
            log.warning("clock.fenced", fence=term.fence, schedule=schedule.id)
            return None
        self._marks[schedule.id] = mark
        return mark

    def _treat(self, schedule: Schedule, run_ms: int, now_ms: int) -> None:
        reason = schedule.skip_reason(run_ms, now_ms)
        try:
            if reason is not None:
                self._skip(schedule, run_ms, now_ms, reason)
                return
            late_s = (now_ms - run_ms) / 1000
            missed = "run late" if late_s > SKIP_LATEST_S else None
            receipt = self._bridge.submit(schedule.make_job(run_ms, late_s=late_s, missed=missed))
        except (InvalidJob, UnknownProject, PolicyDenied) as error:
            # It would not fit any better next time, and must not keep the runs after it from their turn.
            log.warning("schedule.refused", schedule=schedule.id, run_at=utc(run_ms), reason=str(error))
            return
        self.fired += 1
        log.info(
            "schedule.fired",
            schedule=schedule.id,
            run_at=utc(run_ms),
            job_id=receipt.job_id,
            late_ms=now_ms - run_ms,
        )

    def _skip(self, schedule: Schedule, run_ms: int, now_ms: int, reason: str) -> None:
        """Record a run that is not started: as a job that is cancelled before it could start."""
        job = schedule.make_job(run_ms, late_s=(now_ms - run_ms) / 1000, missed="skipped")
        self._bridge.submit(job, delay_s=_SKIPPED_DELAY_S)
        try:
            known = self._bridge.reader.job(job.job_id)
        except JobNotFound as error:
            raise StoreUnreachable(
                "the store lost a job that it had taken.", remedy="It is tried again."
            ) from error
        if known.metadata.get("missed") != "skipped":
            # A leader before us started it in time and could not note that any more.
            return
        self._bridge.scripts.cancel(job.job_id, reason)
        self.skipped += 1
        log.warning("schedule.skipped", schedule=schedule.id, job_id=job.job_id, reason=reason)

    def _skip_many(self, schedule: Schedule, runs: list[int]) -> None:
        """Record runs of long ago as one job."""
        reason = (
            f"missed: {_span(runs)};"
            f" the last {self._catch_up_max} are treated one by one (clock_catch_up_max)"
        )
        try:
            self._skip(schedule, runs[0], runs[-1], reason)
        except (InvalidJob, UnknownProject, PolicyDenied) as error:
            log.warning("schedule.refused", schedule=schedule.id, run_at=utc(runs[0]), reason=str(error))


def _span(runs: list[int]) -> str:
    if len(runs) == 1:
        return f"1 run, due at {utc(runs[0])}"
    return f"{len(runs)} runs from {utc(runs[0])} to {utc(runs[-1])}"
