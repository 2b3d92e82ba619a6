"""Check the policy before an attempt: the rules may have changed since the job was submitted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from middleware.broker.approvals import Approvals
from middleware.context import current_job
from middleware.job.policy import APPROVE, Policy
from middleware.job.schema import Job
from middleware.job.types import DELIVER
from ops.backoff import Backoff
from ops.errors import PolicyDenied, StoreUnreachable
from ops.settings.load import Settings


class AttemptPolicy:
    """Lets an attempt begin, or refuses the job for good.

    It is called inside the attempt and is not a middleware: Dramatiq logs what a hook raises and runs the
    actor nevertheless.

    Args:
        settings: Returns the current settings.
        approvals: Knows which jobs were approved.
    """

    def __init__(self, settings: Callable[[], Settings], approvals: Approvals) -> None:
        self._settings = settings
        self._approvals = approvals
        self._lock = threading.Lock()
        self._read_from: Settings | None = None
        self._policy = Policy(())

    def _current(self) -> Policy:
        settings = self._settings()
        if settings is not self._read_from:
            with self._lock:
                self._policy = Policy(settings.policy)
                self._read_from = settings
        return self._policy

    def require(self, job: Job) -> None:
        """Return if the job may run.

        Raises:
            PolicyDenied: The policy denies the job now, or requires an approval that it does not have.
            JobInterrupted: The job was cancelled or reached its time limit while the store was unavailable.
        """
        if job.job_type == DELIVER:
            return  # it results from a job that the policy has allowed
        decision = self._current().require(job)
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
