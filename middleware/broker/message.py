"""One delivery of a job on its way through a worker."""

from __future__ import annotations

from typing import Any

import msgspec
from dramatiq import Message
from dramatiq.broker import MessageProxy

from middleware.broker.transitions import Delivered, EnqueueRequest, GroupMember, Settlement
from middleware.context import JobContext
from middleware.job.records import JobError
from middleware.job.schema import ActorJob, Job
from ops.errors import BridgeError


class JobMessage(MessageProxy):
    """Dramatiq's message for one delivery of one job.

    Args:
        job: What was submitted.
        delivered: The reply of ``fetch``.
        delivery: The delivery token, which fences off other workers; see ``fetch.lua``.
        message: Dramatiq's message, with which the actor is called.
        asked_s: When the store was asked for it, by the monotonic clock.
        fetched_s: When the store had answered.

    Attributes:
        job: What was submitted.
        delivered: The reply of ``fetch``.
        delivery: The delivery token.
        is_built_in: Whether the job is of a built-in type.
        key: Job id and delivery token. The id alone is not unique: a job that was taken back while it runs
            here may be delivered to this very process again.
        context: Set while the job runs.
        result: What the actor returned; set before the ``job_ended`` hooks run.
        group: Group of which the job is a member, if its end may have followers.
        ended: How the attempt ended, as Dramatiq told it first.
        hooks_called: Whether all hooks have been called that settle the attempt.
        asked_s: When the store was asked for it, by the monotonic clock.
        fetched_s: When the store had answered.
    """

    def __init__(
        self,
        job: Job,
        delivered: Delivered,
        delivery: str,
        message: Message[Any],
        *,
        asked_s: float = 0.0,
        fetched_s: float = float("inf"),
    ) -> None:
        super().__init__(message)
        self.job = job
        self.is_built_in = not isinstance(job, ActorJob)
        self.delivered = delivered
        self.delivery = delivery
        self.key = (job.job_id, delivery)
        self.asked_s = asked_s
        self.fetched_s = fetched_s
        # Read many times for each job; those of the base class go through its __getattr__.
        self.actor_name: str = message.actor_name
        self.queue_name: str = message.queue_name
        self.message_id: str = message.message_id
        self.options: dict[str, Any] = message.options
        self.context: JobContext | None = None
        self.result: Any = None
        self.group: GroupMember | None = None
        self.ended: dict[str, Any] = {}
        self.hooks_called = False
        self._options_before = dict(message.options) if message.options else {}
        self._followers: dict[str, EnqueueRequest] = {}
        self._refusal: BridgeError | None = None
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

    def follow_up(self, request: EnqueueRequest) -> None:
        """Enqueue a job in the step that commits the end of this attempt; the same job twice counts once."""
        self._followers[request.job_id] = request

    def refuse_follow_up(self, error: BridgeError) -> None:
        """Note that a job that was to follow cannot be enqueued: this one then fails, with that reason."""
        self._refusal = error

    def restart_follow_ups(self) -> None:
        """Forget what was to follow; the hooks that say so run again, after an interrupt."""
        self._followers.clear()
        self._refusal = None

    def complete_settlement(self) -> Settlement | None:
        """Return the settlement with what follows the attempt; None if no middleware has decided."""
        settled = self._settlement
        if settled is None or settled.outcome == "queued":
            return settled
        if self._refusal is not None:
            refused = f"what follows it was refused: {self._refusal.message}"
            if settled.outcome == "completed":
                error = JobError.of(self._refusal).encode()
                return msgspec.structs.replace(settled, outcome="failed", error=error, reason=refused)
            settled = msgspec.structs.replace(settled, reason=f"{settled.reason}; {refused}")
        changed = settled.outcome == "retrying" and self.options != self._options_before
        if not (changed or self._followers or self.group):
            return settled
        return msgspec.structs.replace(
            settled,
            options=_encode_options(self.options) if changed else b"",
            followers=tuple(self._followers.values()),
            group=self.group,
        )

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        return self.delivered.attempt

    @property
    def retries_used(self) -> int:
        """Retries used since the last retry by hand."""
        return self.delivered.attempt - self.delivered.base_attempt - 1


def _encode_options(options: dict[str, Any]) -> bytes:
    """Return options as JSON; one that has no JSON form is text: it is for people, as a traceback is."""
    return msgspec.json.encode(options, enc_hook=str)
