"""One delivery of a job on its way through a worker."""

from __future__ import annotations

from dramatiq import Message
from dramatiq.broker import MessageProxy

from middleware.broker.scripts import Delivered, Settlement
from middleware.context import JobContext
from middleware.job.schema import Job


class JobMessage(MessageProxy):
    """Dramatiq's message for one delivery of one job.

    Args:
        job: What was submitted.
        delivered: The reply of ``fetch``.
        delivery: The delivery token, which fences off other workers; see ``fetch.lua``.
        queue: Name of the queue that it was fetched from.
        asked_s: When it was fetched, by the monotonic clock.

    Attributes:
        job: What was submitted.
        delivered: The reply of ``fetch``.
        delivery: The delivery token.
        key: Job id and delivery token. The id alone is not unique: a job that was taken back while it runs
            here may be delivered to this very process again.
        context: Set while the job runs.
        asked_s: When it was fetched, by the monotonic clock.
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
        self._settlement: Settlement | None = None

    def __str__(self) -> str:
        """Name the job. Its payload may hold secrets and stays out of the logs."""
        return f"{self.job.job_type} {self.job.job_id}"

    @property
    def settlement(self) -> Settlement | None:
        """How the attempt ended; None until a middleware has decided. ``BridgeConsumer.ack`` commits it."""
        return self._settlement

    def settle(self, settlement: Settlement) -> None:
        """Decide how the attempt ends, once and for all.

        Either a ``job_starting`` hook that skips the attempt decides, or the first ``job_ended`` hook that
        has a reason to: ``Cancellation``, then ``Retries``, then ``Receipts``. A hook looks at ``settlement``
        first. No other may write it, and none may replace it: only when the store refuses it does
        ``GroupCommit`` commit a failure instead.

        Raises:
            RuntimeError: Another middleware has decided before.
        """
        if self._settlement is not None:
            raise RuntimeError(
                f"{self} is settled as {self._settlement.outcome} and cannot become {settlement.outcome}"
            )
        self._settlement = settlement

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        return self.delivered.attempt

    @property
    def retries_used(self) -> int:
        """Retries used since the last retry by hand."""
        return self.delivered.attempt - self.delivered.base_attempt - 1
