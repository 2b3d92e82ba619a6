"""Decides what a failed attempt leads to: another one later, or the dead letters."""

from __future__ import annotations

import random
import time
import traceback
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.context import TimeLimitExceeded, WorkerStopping
from middleware.job.keys import Keys
from middleware.job.records import JobError, utc
from middleware.provider_wait import PARKED, Parks, park_wait_s, read_parks
from middleware.receipts import result_of_failure
from middleware.time_limit import time_limit_s
from ops.backoff import exponential_s
from ops.errors import BridgeError, JobFailed, JobParked, JobRefused, StoreUnreachable
from ops.settings.load import Settings


def backoff_s(retries_used: int, *, min_s: float, max_s: float, fraction: float) -> float:
    """Give how long to wait before the next attempt: exponential backoff with full jitter.

    Full jitter spreads the retries of jobs that failed together best (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015).

    Args:
        retries_used: 0 after the first attempt.
        min_s: The longest wait after the first attempt, in seconds.
        max_s: The longest wait after any attempt, in seconds.
        fraction: 0 to 1, random: which part of the longest wait it is.
    """
    return exponential_s(retries_used + 1, first_s=min_s, max_s=max_s) * fraction


class Retries(dramatiq.Middleware):
    """Turns the exception of an attempt into its settlement.

    A job gets ``max_retries`` more attempts, its own figure or its type's. ``JobRefused`` is final at once;
    dramatiq's ``Retry(delay=...)`` names the wait itself. ``JobParked`` waits without using up a retry, as
    long as all such waits of the job together stay within its time limit. The retry is committed in the same
    step as the end of the attempt, so no crash between the two can lose or double it.

    Args:
        settings: Limits and backoff by job type.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def actor_options(self) -> set[str]:
        """``throws``: exceptions that are an outcome, not a surprise; Dramatiq logs no traceback for them."""
        return {"throws"}

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Prepare the settlement of a failed attempt."""
        if exception is None or not isinstance(message, JobMessage) or message.settlement is not None:
            return
        interrupt = None if message.context is None else message.context.interrupt_requested
        if interrupt is WorkerStopping:
            message.settlement = Settlement(outcome="queued", reason="handed back: its worker was stopped")
            return
        failure: BaseException = exception
        if interrupt is TimeLimitExceeded:
            how = "" if message.context is None else message.context.stopped
            limit_s = time_limit_s(message.job, self._settings)
            limit = f"the attempt took longer than its limit of {limit_s:g} s"
            failure = JobFailed(
                f"{limit}; {how}." if how else f"{limit}.",
                remedy="Give the job more time (--timeout), or less to do.",
            )
        message.settlement = self._settle(message, failure, exception, _parks_before(broker, message))

    def _settle(
        self, message: JobMessage, failure: BaseException, raised: BaseException, parks: Parks
    ) -> Settlement:
        expected = isinstance(failure, BridgeError | Retry)
        trace = "" if expected else "".join(traceback.format_exception(raised))
        error = JobError.of(failure, traceback=trace).encode()
        result = result_of_failure(raised)
        kind = self._settings.type_settings(message.job.job_type)
        allowed = kind.max_retries if message.job.max_retries is None else message.job.max_retries
        used = message.retries_used - parks.count
        said = failure.message if isinstance(failure, BridgeError) else f"{type(failure).__name__}: {failure}"
        said = said.rstrip(".")
        if isinstance(failure, JobRefused):
            return Settlement(outcome="failed", error=error, result=result, reason=f"refused: {said}")
        if isinstance(failure, JobParked):
            return self._park(message, failure, parks, error)
        if used >= allowed:
            attempts = f"after {used + 1} attempts" if used else "in its only attempt"
            return Settlement(
                outcome="failed", error=error, result=result, reason=f"failed {attempts}: {said}"
            )
        wait_s = backoff_s(used, min_s=kind.backoff_min_s, max_s=kind.backoff_max_s, fraction=random.random())  # noqa: S311
        if isinstance(failure, Retry) and failure.delay is not None:
            wait_s = failure.delay / 1000
        return Settlement(
            outcome="retrying",
            error=error,
            delay_ms=int(wait_s * 1000),
            reason=f"attempt {message.attempt} failed: {said}; the next one is in {wait_s:.1f} s",
        )

    def _park(self, message: JobMessage, failure: JobParked, parks: Parks, error: bytes) -> Settlement:
        """Have the job wait until it was told to come back, if that is not too long."""
        limit_s = min(time_limit_s(message.job, self._settings), failure.limit_s)
        wait_s = park_wait_s(failure.after_s, parks=parks.count, fraction=random.random())  # noqa: S311
        said = failure.message.rstrip(".")
        if parks.parked_s + max(failure.after_s, 0.0) > limit_s:
            waited = f" after {parks.parked_s:.0f} s of waiting" if parks.count else ""
            reason = (
                f"failed: it would have to wait {failure.after_s:.0f} s{waited}, of {limit_s:g} s: {said}"
            )
            return Settlement(outcome="failed", error=error, reason=reason)
        until = utc(int((time.time() + wait_s) * 1000))
        return Settlement(
            outcome="retrying", error=error, delay_ms=int(wait_s * 1000), reason=f"{PARKED}{until}: {said}"
        )


def _parks_before(broker: Broker, message: JobMessage) -> Parks:
    """Look up how often earlier attempts of this job were parked."""
    if message.attempt <= 1 or not isinstance(broker, BridgeBroker):
        return Parks()
    key = Keys(broker.scripts.prefix).receipts(message.job.job_id)
    try:
        chain = broker.scripts.store.call("LRANGE", key, 0, -1)
    except StoreUnreachable as failure:
        broker.outage.begin(failure)
        # Not known: then none is taken for a failure, and the next attempt will know.
        return Parks(count=message.retries_used)
    return read_parks(chain, base_attempt=message.delivered.base_attempt)
