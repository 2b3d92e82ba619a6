"""A middleware: a line in the output of each job, before its attempt."""

from __future__ import annotations

from actors.context import current_job
from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.job_middleware import JobMiddleware


class Announce(JobMiddleware):
    """Write which worker carries out the attempt."""

    #: Inside of the middleware that provides current_job().
    after = "CurrentJob"

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Write the line."""
        if message.job.job_type != "deliver":
            current_job().log(f"announce: {message.job.job_type} on {broker.worker_id}", stream="err")
