"""Stops a running job that somebody has cancelled."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any

import dramatiq
import hiredis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import SkipMessage

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.context import JobCancelled
from middleware.current_job import CurrentJob
from middleware.job.keys import Keys
from middleware.receipts import result_of_failure
from ops.backoff import Backoff
from ops.errors import BridgeError, JobRefused
from ops.store.resp import Connection, as_error
from ops.threads import start_duty

#: Cancellations that came before their job had started are remembered, this many at most.
_EARLY_MAX = 1000
_LISTEN_S = 5.0

logger = logging.getLogger(__name__)


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
        self._stopping = threading.Event()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start to listen."""
        start_duty("control", self._run, broker, ended=self._stopping.is_set)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop to listen; the thread ends within its next wait."""
        self._stopping.set()

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

    def _run(self, broker: BridgeBroker) -> None:
        keys = Keys(broker.scripts.prefix)
        backoff = Backoff()
        while not self._stopping.is_set():
            link: Connection | None = None
            try:
                link = broker.scripts.store.connect()
                link.send([("SUBSCRIBE", keys.control_channel(broker.worker_id))])
                self._hear(link)
                self._look_again(broker, keys)
                backoff.reset()
                while not self._stopping.is_set():
                    if not self._hear(link):
                        # Silence: the link may be dead without knowing, or a job had not started yet before.
                        self._look_again(broker, keys)
            except BridgeError as error:
                broker.outage.begin(error)
                backoff.wait(self._stopping)
            finally:
                if link is not None:
                    link.close()

    def _hear(self, link: Connection) -> bool:
        """Take the next message; tells whether there was one."""
        try:
            reply = link.read(_LISTEN_S)
        except TimeoutError:
            return False
        if isinstance(reply, hiredis.ReplyError):
            raise as_error(reply)
        words = reply[2].decode().split(" ") if reply[0] == b"message" else []
        if words and words[0] == "cancel":
            self._cancel((words[1], words[2]))
        return True

    def _cancel(self, key: tuple[str, str]) -> None:
        if self._current.interrupt(key, JobCancelled):
            return
        self._early[key] = None
        while len(self._early) > _EARLY_MAX:
            self._early.popitem(last=False)
        # It may have started between these two: then it has passed the check for early ones.
        self._current.interrupt(key, JobCancelled)

    def _look_again(self, broker: BridgeBroker, keys: Keys) -> None:
        for message in self._current.running():
            if broker.scripts.store.call("HGET", keys.job(message.job.job_id), "cancel") is not None:
                self._current.interrupt(message.key, JobCancelled)
