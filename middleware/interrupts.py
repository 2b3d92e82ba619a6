"""Signals that stop a running job from outside.

They are interrupts (``BaseException``), so that an actor's ``except Exception`` does not swallow them.
"""

from __future__ import annotations

from dramatiq.middleware import Interrupt


class JobInterrupted(Interrupt):
    """Base: somebody or something asked the running job to stop."""


class JobCancelled(JobInterrupted):
    """Somebody cancelled the job."""


class WorkerStopping(JobInterrupted):
    """The worker is being stopped and its running jobs have had their time: the job is handed back."""


class TimeLimitExceeded(JobInterrupted):
    """The attempt has run for longer than the job allows."""
