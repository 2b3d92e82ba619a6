"""``message.get_result()``: the result of a job, as Dramatiq's ``Results`` middleware gives it."""

from __future__ import annotations

import time
from typing import Any

from dramatiq import Message, Middleware
from dramatiq.broker import MessageProxy
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, Results, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT

from middleware.job.follow import Follower
from middleware.job.ids import job_id_of_message
from middleware.job.reader import Reader
from middleware.job.records import JobRecord
from middleware.job.states import State
from ops.backoff import Backoff
from ops.errors import JobNotFound, WaitTimeout


class JobResults(ResultBackend):
    """Reads results from the jobs themselves: settling a job stores its result.

    Args:
        reader: Reads the store.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader
        self._follower = Follower(reader.store, reader)

    def get_result(
        self, message: Message[Any] | MessageProxy, *, block: bool = False, timeout: int | None = None
    ) -> Any:
        """Return what the message's actor returned.

        Args:
            message: As ``send`` returned it.
            block: Wait for the job to end.
            timeout: Longest wait, in ms; 10 s by default.

        Raises:
            ResultMissing: The job has not ended, or the store no longer has it.
            ResultTimeout: It did not end in time.
            ResultFailure: It failed or was cancelled.
        """
        job_id = job_id_of_message(message.message_id, message.message_timestamp)
        if block:
            limit_ms = DEFAULT_TIMEOUT if timeout is None else timeout
            return _result(self._wait(message, job_id, time.monotonic() + limit_ms / 1000))
        try:
            record = self._reader.job(job_id)
        except JobNotFound:
            raise ResultMissing(message) from None  # type: ignore[no-untyped-call]
        if not record.is_final:
            raise ResultMissing(message)  # type: ignore[no-untyped-call]
        return _result(record)

    def _wait(self, message: Message[Any] | MessageProxy, job_id: str, deadline_s: float) -> JobRecord:
        backoff = Backoff(first_s=0.02, max_s=0.2)
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                return self._follower.wait(job_id, timeout_s=left_s)
            except WaitTimeout:
                break
            except JobNotFound:
                # It follows a job that has not ended: the next message of a pipeline.
                backoff.sleep()
        raise ResultTimeout(message)  # type: ignore[no-untyped-call]


def _result(record: JobRecord) -> Any:
    if record.status == State.COMPLETED:
        return record.result
    error = record.error
    kind = "JobCancelled" if error is None else error.type
    text = record.reason if error is None else error.message
    raise ResultFailure(f"actor raised {kind}: {text}", kind, text)  # type: ignore[no-untyped-call]


def job_results(reader: Reader) -> Results:
    """Return Dramatiq's ``Results`` over the jobs' own results, which are always stored.

    It is not a subclass: Dramatiq's worker looks for this very class; without it, it logs for each job that
    the result was discarded. ``store_results`` and ``result_ttl`` are accepted and have no effect: a result
    is kept as long as its job. The broker does not call its hooks, see ``stores_nothing``.

    Args:
        reader: Reads the store.
    """
    return Results(backend=JobResults(reader), store_results=True)  # type: ignore[no-untyped-call]


def stores_nothing(middleware: Middleware) -> bool:
    """Return whether a middleware is the one of ``job_results``: what it would store, ``Receipts`` has."""
    return isinstance(middleware, Results) and isinstance(middleware.backend, JobResults)
