"""Check the policy before an attempt: the rules may have changed since the job was submitted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dramatiq.middleware import SkipMessage

from middleware.broker.approvals import Approvals
from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.broker.type_directory import TypeDirectory
from middleware.context import current_job
from middleware.job.policy import APPROVE, Policy
from middleware.job.records import JobError
from middleware.job.schema import Job
from middleware.job.types import DELIVER
from middleware.job_middleware import JobMiddleware
from ops.backoff import Backoff
from ops.errors import BridgeError, PolicyDenied, StoreUnreachable
from ops.settings.load import Settings

logger = logging.getLogger(__name__)


class AttemptPolicy(JobMiddleware):
    """Lets an attempt begin, or refuses the job for good.

    Hazard: Dramatiq logs what a hook raises and runs the actor nevertheless; so every exception here skips
        the attempt.

    Args:
        settings: Returns settings that are at least as new as a time by the monotonic clock.
        approvals: Knows which jobs were approved.
        types: The job types.
    """

    def __init__(
        self, settings: Callable[[float], Settings], approvals: Approvals, types: TypeDirectory
    ) -> None:
        self._settings = settings
        self._approvals = approvals
        self._runs_programs = types.runs_programs
        self._lock = threading.Lock()
        self._read_from: Settings | None = None
        self._policy = Policy((), runs_programs=self._runs_programs)

    @property
    def actor_options(self) -> set[str]:
        """``runs_programs``: the policy guards the actor as it guards commands."""
        return {"runs_programs"}

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Fail a job that may not run, without an attempt of its actor."""
        try:
            self.require(message.job, since_s=message.fetched_s)
        except Exception as error:
            if not isinstance(error, PolicyDenied):
                logger.exception("job.policy_failed: %s", message.job.job_id)
            cause = error.message.rstrip(".") if isinstance(error, BridgeError) else type(error).__name__
            message.settle(
                Settlement(outcome="failed", error=JobError.of(error).encode(), reason=f"refused: {cause}")
            )
            raise SkipMessage(str(error)) from error

    def _current(self, since_s: float) -> Policy:
        settings = self._settings(since_s)
        if settings is not self._read_from:
            with self._lock:
                self._policy = Policy(settings.policy, runs_programs=self._runs_programs)
                self._read_from = settings
        return self._policy

    def require(self, job: Job, *, since_s: float) -> None:
        """Return if the job may run.

        Args:
            job: The job.
            since_s: When it was fetched, by the monotonic clock: rules as of then count.

        Raises:
            PolicyDenied: The policy denies the job now, or requires an approval that it does not have.
            JobInterrupted: The job was cancelled or reached its time limit while the store was unavailable.
        """
        if job.job_type == DELIVER:
            return  # it results from a job that the policy has allowed
        decision = self._current(since_s).require(job)
        if decision.effect == APPROVE and not self._is_approved(job.job_id):
            raise PolicyDenied(
                f"The policy requires approval of {job.job_type} from {job.source} ({decision.name}), "
                "and this job was not approved.",
                remedy="Submit the job again: it will wait for approval.",
            )

    def _is_approved(self, job_id: str) -> bool:
        backoff = Backoff()
        while True:
            try:
                return self._approvals.is_approved(job_id)
            except StoreUnreachable:
                # No answer is not an approval; the job's time limit bounds the wait.
                backoff.sleep()
                current_job().check_cancelled()
