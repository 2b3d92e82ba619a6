"""Turns what an actor returns into the settlement that its receipt will carry."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
import msgspec
from dramatiq.broker import Broker, MessageProxy

from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.context import JobInterrupted
from middleware.job.records import JobError
from ops.errors import JobFailed

_encoder = msgspec.json.Encoder(order="deterministic")

logger = logging.getLogger(__name__)


def result_of_failure(error: BaseException) -> bytes:
    """Give what an attempt that did not succeed has left behind all the same, as JSON; empty if nothing.

    Args:
        error: What the actor raised. The field ``result`` of ours is meant for that; an exception of somebody
            else's library may have one of this name, too.
    """
    result = getattr(error, "result", None) if isinstance(error, JobFailed | JobInterrupted) else None
    if result is None:
        return b""
    try:
        return _encoder.encode(result)
    except (TypeError, ValueError, msgspec.MsgspecError):
        logger.exception("job.result_unfit: %s", type(error).__name__)
        return b""


class Receipts(dramatiq.Middleware):
    """Encodes the result; ``Consumer.ack`` commits it with receipt, state and event in one step.

    Outside of ``Retries`` and ``Cancellation``: what they decided stands already when it is asked.

    Args:
        result_max_bytes: A larger result fails the job instead of filling the store.
    """

    def __init__(self, *, result_max_bytes: int) -> None:
        self._result_max_bytes = result_max_bytes

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Prepare the settlement of an attempt that succeeded."""
        if exception is None and isinstance(message, JobMessage) and message.settlement is None:
            message.settlement = self._completed(None if message.context is None else message.context.result)

    def _completed(self, result: Any) -> Settlement:
        try:
            data = b"" if result is None else _encoder.encode(result)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            return _unfit(f"the result cannot be written as JSON: {error}.", "Return plain data.")
        if len(data) > self._result_max_bytes:
            return _unfit(
                f"the result has {len(data)} bytes, at most {self._result_max_bytes} are kept.",
                "Write it to a file and return the path, or raise result_max_bytes.",
            )
        return Settlement(outcome="completed", result=data)


def _unfit(message: str, remedy: str) -> Settlement:
    error = JobFailed(message, remedy=remedy)
    return Settlement(outcome="failed", error=JobError.of(error).encode(), reason=str(error))
