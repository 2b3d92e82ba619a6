"""Asks the policy again before a job runs: the rules may have changed since it was taken."""

from __future__ import annotations

import threading
from collections.abc import Callable

from middleware.broker.approvals import Approvals
from middleware.context import current_job
from middleware.job.policy import APPROVE, Policy
from middleware.job.schema import Job
from ops.backoff import Backoff
from ops.errors import PolicyDenied, StoreUnreachable
from ops.settings.load import Settings

#: Deliveries come from the end of a job that was allowed, not from a door.
DELIVERY_TYPE = "deliver"


class PolicyGate:
    """Lets a job's attempt begin, or refuses it for good.

    It stands inside the attempt, not in a ``before_...`` hook: Dramatiq logs what a hook raises and runs the
    actor all the same.

    Args:
        settings: Gives the settings that hold now.
        approvals: Knows which jobs have been approved.
    """

    def __init__(self, settings: Callable[[], Settings], approvals: Approvals) -> None:
        self._settings = settings
        self._approvals = approvals
        self._lock = threading.Lock()
        self._seen: Settings | None = None
        self._policy = Policy(())

    def _current(self) -> Policy:
        settings = self._settings()
        if settings is not self._seen:
            with self._lock:
                self._policy = Policy(settings.policy)
                self._seen = settings
        return self._policy

    def admit(self, job: Job) -> None:
        """Return if the job may run.

        Raises:
            PolicyDenied: The policy denies it now, or wants an approval that it does not have.
            JobInterrupted: It was cancelled, or its time ran out, while the store was away.
        """
        if job.job_type == DELIVERY_TYPE:
            return
        decision = self._current().require(job)
        if decision.effect == APPROVE and not self._is_approved(job.job_id):
            raise PolicyDenied(
                f"the policy wants {job.job_type} from {job.source} approved ({decision.name}), "
                "and this job was not.",
                remedy="Dispatch it anew: it will wait for approval.",
            )

    def _is_approved(self, job_id: str) -> bool:
        backoff = Backoff()
        while True:
            try:
                return self._approvals.is_approved(job_id)
            except StoreUnreachable:
                # Nobody may take silence for a yes; the job's time limit bounds the wait.
                backoff.sleep()
                current_job().check_cancelled()
