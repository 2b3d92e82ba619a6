"""Decide what a failed attempt leads to: another attempt later, or the final state ``failed``."""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
from dramatiq.errors import Retry
from dramatiq.middleware import Shutdown

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.interrupts import TimeLimitExceeded, WorkerStopping
from middleware.job.base import MAX_RETRIES_LIMIT, ActorJob
from middleware.job.keys import Keys
from middleware.job.records import AttemptCount, JobError, utc
from middleware.job.types import JOB_TYPES
from middleware.job_middleware import JobMiddleware
from middleware.parked_attempts import PARKED, FreeAttempts, parked_wait_s, read_free_attempts
from middleware.receipts import result_of_failure
from middleware.time_limit import time_limit_s
from ops.backoff import exponential_s
from ops.errors import BridgeError, JobFailed, JobParked, JobRefused, StoreUnreachable
from ops.settings.load import Settings
from ops.settings.work import TypeSettings

#: End of a traceback that is kept with the options of a message.
_TRACEBACK_MAX_CHARS = 10_000

logger = logging.getLogger(__name__)


def retry_wait_s(retries_used: int, *, min_s: float, max_s: float, fraction: float) -> float:
    """Return the wait before the next attempt, in seconds: exponential backoff with full jitter.

    Full jitter spreads the retries of jobs that failed together best (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015).

    Args:
        retries_used: 0 after the first attempt.
        min_s: The longest wait after the first attempt.
        max_s: The longest wait after any attempt.
        fraction: 0 to 1, random: which part of the longest wait it is.
    """
    return exponential_s(retries_used + 1, first_s=min_s, max_s=max_s) * fraction


def actor_retry_wait_s(retries_used: int, *, min_s: float, max_s: float, fraction: float) -> float:
    """Return the wait before the next attempt of a user's actor, in seconds: as Dramatiq computes it.

    Its ``min_backoff`` is the shortest wait, which doubles with each retry; jitter adds up to as much again.

    Args:
        retries_used: 0 after the first attempt.
        min_s: The shortest wait after the first attempt.
        max_s: The longest wait after any attempt.
        fraction: 0 to 1, random: how much jitter is added.
    """
    wait_s = exponential_s(retries_used + 1, first_s=min_s, max_s=float("inf")) * (1.0 + fraction)
    return wait_s if wait_s <= max_s else max_s * (1.0 + fraction) / 2


class Retries(JobMiddleware):
    """Turns the exception of an attempt into its settlement.

    A job gets ``max_retries`` more attempts, its own number or its type's. ``JobRefused`` is final at once;
    Dramatiq's ``Retry(delay=...)`` sets the wait. ``JobParked`` waits without using up a retry, as long as
    all such waits of the job together stay within its time limit. The retry is committed in the same step as
    the end of the attempt, so no crash between the two can lose or double it.

    Args:
        settings: Limits and backoff by job type.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def actor_options(self) -> set[str]:
        """Dramatiq's options for retries; see ``dramatiq.middleware.Retries``."""
        return {"max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted"}

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Settle a failed attempt."""
        if exception is None or message.settlement is not None:
            return
        interrupt = None if message.context is None else message.context.interrupt_requested
        if interrupt is WorkerStopping or isinstance(exception, Shutdown):
            message.settle(Settlement(outcome="queued", reason="handed back: its worker was stopped"))
            return
        failure = self._time_limit_failure(message) if interrupt is TimeLimitExceeded else exception
        options = _Options(broker, message)
        if options.throws and isinstance(failure, options.throws):
            logger.info("Aborting message %r.", message.message_id)
            message.fail()
        settlement = self._settle(message, failure, exception, _free_attempts(broker, message), options)
        message.settle(settlement)
        if settlement.outcome == "retrying":
            self._note_retry(message, exception)
            return
        exhausted = not message.failed
        self._note_retry(message, exception)
        message.fail()
        if exhausted and options.on_retry_exhausted:
            broker.get_actor(options.on_retry_exhausted).send(
                message.asdict(), {"retries": message.retries_used, "max_retries": message.job.max_retries}
            )

    @staticmethod
    def _note_retry(message: JobMessage, exception: BaseException) -> None:
        """Set the options that Dramatiq's ``Retries`` sets; callbacks and the next attempt see them."""
        if isinstance(message.job, ActorJob):
            message.options["retries"] = message.retries_used + 1
            text = "".join(traceback.format_exception(exception, limit=30))
            message.options["traceback"] = text[-_TRACEBACK_MAX_CHARS:]
            message.options["requeue_timestamp"] = time.time_ns() // 1_000_000

    def _time_limit_failure(self, message: JobMessage) -> JobFailed:
        stopped = "" if message.context is None else message.context.stopped
        limit_s = time_limit_s(message.job, self._settings)
        limit = f"the attempt took longer than its limit of {limit_s:g} s"
        return JobFailed(
            f"{limit}; {stopped}." if stopped else f"{limit}.",
            remedy="Raise the limit (--timeout), or split the work.",
        )

    def _settle(
        self,
        message: JobMessage,
        failure: BaseException,
        raised: BaseException,
        free: FreeAttempts,
        options: _Options,
    ) -> Settlement:
        expected = message.failed or isinstance(failure, BridgeError | Retry)
        trace = "" if expected else "".join(traceback.format_exception(raised))
        error = JobError.of(failure, traceback=trace).encode()
        result = result_of_failure(raised)
        kind = options.limits(self._settings)
        allowed = kind.max_retries if message.job.max_retries is None else message.job.max_retries
        used = message.retries_used - free.parked - free.lost
        exhausted = used >= allowed
        if options.retry_when is not None:
            exhausted = not options.retry_when(used, raised) or used >= MAX_RETRIES_LIMIT
        cause = (
            failure.message if isinstance(failure, BridgeError) else f"{type(failure).__name__}: {failure}"
        )
        cause = cause.rstrip(".")
        if isinstance(failure, JobRefused):
            return Settlement(outcome="failed", error=error, result=result, reason=f"refused: {cause}")
        if isinstance(failure, JobParked):
            return self._park(message, failure, free, error)
        count = AttemptCount(
            attempt=message.attempt,
            max_retries=allowed if options.retry_when is None else None,
            lost=free.lost,
            parked=free.parked,
            before=message.delivered.base_attempt,
        )
        if exhausted or message.failed:
            return Settlement(outcome="failed", error=error, result=result, reason=count.failed(cause))
        wait_for = actor_retry_wait_s if isinstance(message.job, ActorJob) else retry_wait_s
        wait_s = wait_for(
            used,
            min_s=kind.backoff_min_s,
            max_s=kind.backoff_max_s,
            fraction=random.random(),  # noqa: S311
        )
        if isinstance(failure, Retry) and failure.delay is not None:
            wait_s = failure.delay / 1000
        return Settlement(
            outcome="retrying",
            error=error,
            delay_ms=int(wait_s * 1000),
            reason=f"{count.label} failed: {cause}; the next one is in {wait_s:.1f} s",
        )

    def _park(self, message: JobMessage, failure: JobParked, free: FreeAttempts, error: bytes) -> Settlement:
        """Make the job wait as long as it was asked to, unless its waits together become too long."""
        limit_s = min(time_limit_s(message.job, self._settings), failure.limit_s)
        wait_s = parked_wait_s(failure.after_s, parked=free.parked, fraction=random.random())  # noqa: S311
        cause = failure.message.rstrip(".")
        if free.waiting_s + max(failure.after_s, 0.0) > limit_s:
            waited = f" after {free.waiting_s:.0f} s of waiting" if free.parked else ""
            reason = (
                f"failed: it would have to wait {failure.after_s:.0f} s{waited}; "
                f"the limit is {limit_s:g} s: {cause}"
            )
            return Settlement(outcome="failed", error=error, reason=reason)
        until = utc(int((time.time() + wait_s) * 1000))
        return Settlement(
            outcome="retrying", error=error, delay_ms=int(wait_s * 1000), reason=f"{PARKED}{until}: {cause}"
        )


class _Options:
    """Dramatiq's options of an attempt: those of its message, else those of its actor.

    Args:
        broker: Knows the actor.
        message: The attempt.
    """

    def __init__(self, broker: BridgeBroker, message: JobMessage) -> None:
        self._types = broker.types
        self._message = message
        actor = None if JOB_TYPES.get(message.actor_name) else broker.actors.get(message.actor_name)
        self._of_actor: dict[str, Any] = {} if actor is None else actor.options
        throws = self._of_actor.get("throws")
        self.throws: tuple[type[BaseException], ...] = (
            () if throws is None else tuple(throws) if isinstance(throws, tuple | list) else (throws,)
        )
        self.retry_when: Callable[[int, BaseException], bool] | None = self._of_actor.get("retry_when")
        self.on_retry_exhausted: str | None = self._get("on_retry_exhausted")

    def _get(self, name: str) -> Any:
        return self._message.options.get(name, self._of_actor.get(name))

    def limits(self, settings: Settings) -> TypeSettings:
        """Return the limits of the job type, with the backoff that the message sets."""
        limits = self._types.limits(self._message.job.job_type, settings)
        own = {
            f"{limit}_s": self._message.options[option] / 1000
            for option, limit in (("min_backoff", "backoff_min"), ("max_backoff", "backoff_max"))
            if option in self._message.options
        }
        return msgspec.structs.replace(limits, **own) if own else limits


def _free_attempts(broker: BridgeBroker, message: JobMessage) -> FreeAttempts:
    """Return the earlier attempts of this job that use up no retry."""
    if message.attempt <= 1:
        return FreeAttempts()
    key = Keys(broker.scripts.prefix).receipts(message.job.job_id)
    try:
        chain = broker.scripts.store.call("LRANGE", key, 0, -1)
    except StoreUnreachable as failure:
        broker.outage.begin(failure)
        # Unknown: then no attempt counts as failed, and the next one reads the chain again.
        return FreeAttempts(parked=message.retries_used)
    return read_free_attempts(chain, base_attempt=message.delivered.base_attempt)
