"""Stop a running job that was cancelled."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from dramatiq.middleware import SkipMessage

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.current_job import CurrentJob
from middleware.interrupts import JobCancelled
from middleware.job.keys import Keys
from middleware.job_middleware import JobMiddleware
from middleware.receipts import result_of_failure
from ops.errors import JobRefused
from ops.store.channels import ChannelListener

#: Maximum number of cancellations that are remembered until their job starts.
_EARLY_MAX = 1000


class Cancellation(JobMiddleware):
    """Subscribes to this worker's control channel and interrupts the jobs that are cancelled there.

    After a reconnection it reads the cancel flags of all running jobs, since messages may have been lost. The
    outcome "cancelled" is committed only when the actor has ended, child processes included.

    Args:
        current: The running jobs.
    """

    def __init__(self, current: CurrentJob) -> None:
        self._current = current
        self._early: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._listener: ChannelListener | None = None

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Subscribe."""
        self._listener = ChannelListener(
            broker.scripts.store,
            on_message=lambda _, data: self._on_message(data),
            on_subscribed=lambda _: self._read_flags(broker),
            on_silence=lambda: self._read_flags(broker),
            on_outage=broker.outage.begin,
        )
        self._listener.subscribe(Keys(broker.scripts.prefix).control_channel(broker.worker_id))
        self._listener.start("control")

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Unsubscribe; the thread ends within 5 s."""
        if self._listener is not None:
            self._listener.stop()

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Skip a job that was cancelled between its fetch and its start."""
        if message.key in self._early:
            self._early.pop(message.key, None)
            message.settle(Settlement(outcome="cancelled"))
            raise SkipMessage

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Settle a job as cancelled if it was asked to stop and then failed.

        A job that ended with ``JobRefused`` keeps that outcome: a part of it could not be stopped, which must
        be visible.
        """
        if exception is None or message.context is None or isinstance(exception, JobRefused):
            return
        if message.settlement is not None:
            return  # Dramatiq runs the hooks again if the interrupt arrives during their first run
        if message.context.interrupt_requested is JobCancelled:
            message.settle(
                Settlement(
                    outcome="cancelled", result=result_of_failure(exception), reason=message.context.stopped
                )
            )

    def _on_message(self, data: bytes) -> None:
        verb, *key = data.decode().split(" ")
        if verb == "cancel":
            self._cancel((key[0], key[1]))

    def _cancel(self, key: tuple[str, str]) -> None:
        if self._current.interrupt(key, JobCancelled):
            return
        self._early[key] = None
        while len(self._early) > _EARLY_MAX:
            self._early.popitem(last=False)
        # If the job started between these two steps, it has already passed the check in job_starting.
        self._current.interrupt(key, JobCancelled)

    def _read_flags(self, broker: BridgeBroker) -> None:
        """Interrupt the running jobs that were cancelled before they started or while messages were lost."""
        keys = Keys(broker.scripts.prefix)
        for message in self._current.running():
            if broker.scripts.store.call("HGET", keys.job(message.job.job_id), "cancel") is not None:
                self._current.interrupt(message.key, JobCancelled)
