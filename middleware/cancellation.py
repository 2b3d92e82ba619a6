"""Stops a running job that somebody has cancelled."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import SkipMessage

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.context import JobCancelled
from middleware.current_job import CurrentJob
from middleware.job.keys import Keys
from middleware.receipts import result_of_failure
from ops.errors import JobRefused
from ops.store.channels import ChannelListener

#: Cancellations that came before their job had started are remembered, this many at most.
_EARLY_MAX = 1000


class Cancellation(dramatiq.Middleware):
    """Listens on this worker's control channel and interrupts the job that is named there.

    After a lost connection the flags of all running jobs are read again, since what was published
    meanwhile went unheard. "Cancelled" is committed only when the actor has ended, children included.

    Args:
        current: Knows the running jobs.
    """

    def __init__(self, current: CurrentJob) -> None:
        self._current = current
        self._early: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._listener: ChannelListener | None = None

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Subscribe to the control channel of this worker."""
        ours = cast("BridgeBroker", broker)
        self._listener = ChannelListener(
            ours.scripts.store,
            on_message=lambda _, data: self._on_message(data),
            on_subscribed=lambda _: self._read_flags(ours),
            on_silence=lambda: self._read_flags(ours),
            on_outage=ours.outage.begin,
        )
        self._listener.subscribe(Keys(ours.scripts.prefix).control_channel(ours.worker_id))
        self._listener.start("control")

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Unsubscribe; the thread ends within 5 s."""
        if self._listener is not None:
            self._listener.stop()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a job that was cancelled between its fetch and its start."""
        if isinstance(message, JobMessage) and message.key in self._early:
            self._early.pop(message.key, None)
            message.settlement = Settlement(outcome="cancelled")
            raise SkipMessage

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """A job that was told to stop and did not succeed all the same is cancelled.

        Not so if it was refused: then something of it could not be stopped, and that must be seen.
        """
        if exception is None or not isinstance(message, JobMessage) or message.context is None:
            return
        if isinstance(exception, JobRefused):
            return
        if message.context.interrupt_requested is JobCancelled:
            message.settlement = Settlement(
                outcome="cancelled", result=result_of_failure(exception), reason=message.context.stopped
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
        # It may have started between these two: then it has passed the check for early ones.
        self._current.interrupt(key, JobCancelled)

    def _read_flags(self, broker: BridgeBroker) -> None:
        """Interrupt the running jobs that were cancelled while no message reached us, or before they ran."""
        keys = Keys(broker.scripts.prefix)
        for message in self._current.running():
            if broker.scripts.store.call("HGET", keys.job(message.job.job_id), "cancel") is not None:
                self._current.interrupt(message.key, JobCancelled)
