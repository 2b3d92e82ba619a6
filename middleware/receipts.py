"""Turn what an actor returns into the settlement that the job's receipt will carry."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.context import JobInterrupted
from middleware.job.records import JobError
from middleware.job_middleware import JobMiddleware
from ops.errors import JobFailed

_encoder = msgspec.json.Encoder(order="deterministic")

logger = logging.getLogger(__name__)


def result_of_failure(error: BaseException) -> bytes:
    """Return the result that a failed attempt leaves nevertheless, as JSON; empty if there is none.

    Args:
        error: What the actor raised. Only our own errors are looked at: a library's exception may have a
            field ``result`` of its own.
    """
    result = getattr(error, "result", None) if isinstance(error, JobFailed | JobInterrupted) else None
    if result is None:
        return b""
    try:
        return _encoder.encode(result)
    except (TypeError, ValueError, msgspec.MsgspecError):
        logger.exception("job.result_unfit: %s", type(error).__name__)
        return b""


class Receipts(JobMiddleware):
    """Encodes the result; ``Consumer.ack`` commits it with receipt, state and event in one step.

    It is outside of ``Retries`` and ``Cancellation``, so their settlement is there when its hook runs.

    Args:
        result_max_bytes: A larger result fails the job instead of filling the store.
    """

    def __init__(self, *, result_max_bytes: int) -> None:
        self._result_max_bytes = result_max_bytes

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Settle an attempt that succeeded, or that a middleware failed without an exception."""
        if exception is not None or message.settlement is not None:
            return
        message.settle(_FAILED_BY_MIDDLEWARE if message.failed else self._completed(message.result))

    def job_skipped(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Settle an attempt that a middleware skipped: completed, unless it failed the message."""
        if message.settlement is None:
            message.settle(_FAILED_BY_MIDDLEWARE if message.failed else _SKIPPED_BY_MIDDLEWARE)

    def _completed(self, result: Any) -> Settlement:
        try:
            data = b"" if result is None else _encoder.encode(result)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            return _unfit(f"the result cannot be written as JSON: {error}.", "Return plain data.")
        if len(data) > self._result_max_bytes:
            return _unfit(
                f"the result has {len(data)} bytes; the limit is {self._result_max_bytes}.",
                "Write it to a file and return the path, or raise result_max_bytes.",
            )
        return Settlement(outcome="completed", result=data)


def _unfit(message: str, remedy: str) -> Settlement:
    error = JobFailed(message, remedy=remedy)
    return Settlement(outcome="failed", error=JobError.of(error).encode(), reason=str(error))


_FAILED_BY_MIDDLEWARE = Settlement(
    outcome="failed",
    error=JobError.of(JobFailed("a middleware failed the message, for instance for its age.")).encode(),
    reason="failed by a middleware",
)
_SKIPPED_BY_MIDDLEWARE = Settlement(outcome="completed", reason="skipped by a middleware")
