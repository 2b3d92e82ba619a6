"""Submit the runs of schedules that are due: each once, in order, late and missed ones by policy.

The store keeps how far each schedule has been processed; only the leader can write that (fencing token, see
``lead.lua``). A run is submitted first and recorded afterwards. After a crash in between, or when a leader
that was considered dead continues, the run is submitted again and the store recognizes it by its job id and
idempotency key.
"""

from __future__ import annotations

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.schedule_timing import runs_between
from ingress.core.schedules import PROGRESS_KEY, SKIP_LATEST_S, Schedule, ScheduleProgress, read_progress
from middleware.broker.leadership import Leadership, Term
from middleware.job.records import utc
from ops.errors import InvalidJob, JobNotFound, PolicyDenied, StoreUnreachable, UnknownProject
from ops.logs import get_logger

#: Runs of one schedule that are handled before the lease is renewed and other schedules have their turn.
_BATCH = 50
#: Run times that are computed at a time.
_LOOKAHEAD_MAX = 5_000
#: Progress further in the future than this was recorded while the store's clock was wrong.
_AHEAD_MS = 3_600_000
#: Delay of a skipped run's job. The job is cancelled at once; if that fails, it is repeated long before this.
_SKIPPED_DELAY_S = 365 * 86_400.0

log = get_logger(__name__)


class RunSubmitter:
    """Submits the due runs of all schedules; used while this process leads.

    Args:
        bridge: Bridge to submit to.
        leadership: Writes the progress, protected by its fencing token.
        catch_up_max: Missed runs per schedule that become a job each; older ones share one job.

    Attributes:
        fired: Runs submitted since the start.
        skipped: Runs skipped since the start.
    """

    def __init__(self, bridge: Bridge, leadership: Leadership, *, catch_up_max: int) -> None:
        self._bridge = bridge
        self._leadership = leadership
        self._catch_up_max = catch_up_max
        self._progress: dict[str, ScheduleProgress] = {}
        self.fired = 0
        self.skipped = 0

    def use(self, bridge: Bridge, *, catch_up_max: int) -> None:
        """Use changed settings from now on."""
        self._bridge = bridge
        self._catch_up_max = catch_up_max

    def load_progress(self) -> None:
        """Load the progress of all schedules, at the start of a term: another leader may have changed it.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        self._progress = read_progress(self._bridge)

    def forget_others(self, term: Term, schedules: list[Schedule]) -> None:
        """Delete the progress of removed schedules; one that is added again has missed no runs."""
        removed = sorted(self._progress.keys() - {schedule.id for schedule in schedules})
        if removed and self._leadership.forget(term, PROGRESS_KEY, removed):
            for name in removed:
                del self._progress[name]

    def submit_due(self, term: Term, schedule: Schedule, now_ms: int) -> int | None:
        """Handle the runs of a schedule that are due, up to 50 of them.

        Args:
            term: Term under which this process leads.
            schedule: Schedule to handle.
            now_ms: The store's time, in milliseconds since 1970.

        Returns:
            When its next run is due, in milliseconds since 1970; None if never.

        Raises:
            StoreUnreachable: The store is unavailable; runs that were not recorded are handled again.
            QueueFull: The queue is full; the same applies.
        """
        progress = self._progress.get(schedule.id)
        if progress is None or progress.timing != schedule.fingerprint:
            progress = self._record(term, schedule, now_ms)
        elif progress.done_ms > now_ms + _AHEAD_MS:
            log.warning("schedule.clock_was_wrong", schedule=schedule.id, done_until=utc(progress.done_ms))
            progress = self._record(term, schedule, now_ms)
        if progress is None:
            return None
        due = runs_between(schedule.timing, progress.done_ms, now_ms, _LOOKAHEAD_MAX)
        if len(due) > self._catch_up_max:
            # The newest ones get a job each, in a later round.
            older = due[: len(due) - self._catch_up_max]
            self._skip_many(schedule, older)
            self._record(term, schedule, older[-1])
            return now_ms
        for run_ms in due[:_BATCH]:
            self._handle(schedule, run_ms, now_ms)
        if due:
            progress = self._record(term, schedule, due[:_BATCH][-1])
        return None if progress is None else schedule.timing.next_ms(progress.done_ms)

    def _record(self, term: Term, schedule: Schedule, done_ms: int) -> ScheduleProgress | None:
        """Record how far a schedule has been processed; return None if another process leads now."""
        progress = ScheduleProgress(done_ms, schedule.fingerprint)
        if not self._leadership.note(term, PROGRESS_KEY, {schedule.id: msgspec.json.encode(progress)}):
            log.warning("clock.fenced", fence=term.fence, schedule=schedule.id)
            return None
        self._progress[schedule.id] = progress
        return progress

    def _handle(self, schedule: Schedule, run_ms: int, now_ms: int) -> None:
        reason = schedule.skip_reason(run_ms, now_ms)
        try:
            if reason is not None:
                self._skip(schedule, run_ms, now_ms, reason)
                return
            late_s = (now_ms - run_ms) / 1000
            missed = "run late" if late_s > SKIP_LATEST_S else None
            receipt = self._bridge.submit(schedule.make_job(run_ms, late_s=late_s, missed=missed))
        except (InvalidJob, UnknownProject, PolicyDenied) as error:
            # Another attempt would fail the same way; the runs after it still have their turn.
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
        """Record a run that does not start, as a job that is cancelled before it could start."""
        job = schedule.make_job(run_ms, late_s=(now_ms - run_ms) / 1000, missed="skipped")
        self._bridge.submit(job, delay_s=_SKIPPED_DELAY_S)
        try:
            known = self._bridge.reader.job(job.job_id)
        except JobNotFound as error:
            raise StoreUnreachable(
                "The store lost a job that it had accepted.", remedy="The run is submitted again."
            ) from error
        if known.metadata.get("missed") != "skipped":
            # A former leader started it in time, and crashed before it recorded that.
            return
        self._bridge.scripts.cancel(job.job_id, reason)
        self.skipped += 1
        log.warning("schedule.skipped", schedule=schedule.id, job_id=job.job_id, reason=reason)

    def _skip_many(self, schedule: Schedule, runs: list[int]) -> None:
        """Record all runs older than the last ``catch_up_max`` as one job."""
        reason = (
            f"missed: {_span(runs)};"
            f" the last {self._catch_up_max} are handled one by one (clock_catch_up_max)"
        )
        try:
            self._skip(schedule, runs[0], runs[-1], reason)
        except (InvalidJob, UnknownProject, PolicyDenied) as error:
            log.warning("schedule.refused", schedule=schedule.id, run_at=utc(runs[0]), reason=str(error))


def _span(runs: list[int]) -> str:
    if len(runs) == 1:
        return f"1 run, due at {utc(runs[0])}"
    return f"{len(runs)} runs from {utc(runs[0])} to {utc(runs[-1])}"
