"""A job on its way through a worker: Dramatiq's message, and what the middleware say about it."""

from __future__ import annotations

from dramatiq import Message
from dramatiq.broker import MessageProxy

from middleware.broker.scripts import Delivered, Settlement
from middleware.context import JobContext
from middleware.job.schema import Job


class JobMessage(MessageProxy):
    """One delivery of one job.

    Attributes:
        job: What was dispatched.
        delivered: What the store said of it.
        delivery: The fence; see ``fetch.lua``.
        key: Job id and delivery. The id alone is not enough: a job that was taken back while it ran here may
            be given to this very process again.
        context: Set while the job runs.
        settlement: How the attempt ended; middleware fill it in, ``Consumer.ack`` commits it.
        asked_s: When it was asked for, by the monotonic clock.
    """

    def __init__(
        self, job: Job, delivered: Delivered, delivery: str, queue: str, *, asked_s: float = 0.0
    ) -> None:
        super().__init__(
            Message(
                queue_name=queue,
                actor_name=job.job_type,
                args=(job.payload,),
                kwargs={},
                options={},
                message_id=job.job_id,
                message_timestamp=delivered.created_ms,
            ),
        )
        self.job = job
        self.delivered = delivered
        self.delivery = delivery
        self.key = (job.job_id, delivery)
        self.asked_s = asked_s
        self.context: JobContext | None = None
        self.settlement: Settlement | None = None

    def __str__(self) -> str:
        """Name the job; its payload may hold secrets and stays out of the logs."""
        return f"{self.job.job_type} {self.job.job_id}"

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        return self.delivered.attempt

    @property
    def retries_used(self) -> int:
        """How many of the allowed retries have been used, counted from the last retry by hand."""
        return self.delivered.attempt - self.delivered.base_attempt - 1
