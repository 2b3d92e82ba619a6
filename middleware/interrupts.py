"""The reasons for which a running job is asked to stop; Dramatiq knows each as one of its own."""

from __future__ import annotations

from dramatiq.middleware import Interrupt, Shutdown
from dramatiq.middleware import TimeLimitExceeded as DramatiqTimeLimitExceeded

from middleware.context import JobInterrupted


class JobCancelled(JobInterrupted, Interrupt):
    """The job was cancelled."""


class WorkerStopping(JobInterrupted, Shutdown):
    """The worker is stopping and the grace period is over: the job goes back to the queue."""


class TimeLimitExceeded(JobInterrupted, DramatiqTimeLimitExceeded):
    """The attempt has reached the job's time limit."""
