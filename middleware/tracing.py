"""OpenTelemetry traces: a span for each job and one for each of its attempts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from ops.trace_ids import open_spans

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from ops.otel import Spans


class Tracing(dramatiq.Middleware):
    """Sends spans to a collector; does nothing without the extra ``otel``; there only with an endpoint.

    The span of a job begins when a door accepts it and ends when a worker starts it for the first time;
    below it stands one span for each attempt. Its trace is that of the job's ``trace_id``, see
    ``ops.trace_ids``. What an instrumented library does in the actor joins the attempt's span. Payloads,
    results and output are never sent; the reason of a failure is.

    Outermost of all, so that the outcome is known when it is asked. A collector that is away costs spans,
    never a job: they are dropped when the SDK's queue is full.

    Args:
        endpoint: OTLP over HTTP.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._spans: Spans | None = None
        self._running: dict[tuple[str, str], Span] = {}

    def after_process_boot(self, broker: Broker) -> None:
        """Open the way to the collector, in each worker process."""
        self._spans = open_spans(self._endpoint)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Send what is left."""
        if self._spans is not None:
            self._spans.close()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Start the span of the attempt."""
        if self._spans is None or not isinstance(message, JobMessage):
            return
        job, begun_ns = message.job, time.time_ns()
        said = {"bridge.job_id": job.job_id, "bridge.job_type": job.job_type, "bridge.source": job.source}
        if job.project is not None:
            said["bridge.project"] = job.project
        whole = self._spans.job(
            job.trace,
            job.job_id,
            f"{job.source} {job.job_type}",
            message.delivered.created_ms * 1_000_000,
            said,
        )
        if message.attempt == 1:
            whole.end(begun_ns)
        worker_id = broker.worker_id if isinstance(broker, BridgeBroker) else ""
        span = self._spans.attempt(
            whole,
            f"run {job.job_type}",
            begun_ns,
            {**said, "bridge.attempt": message.attempt, "bridge.worker_id": worker_id},
        )
        self._spans.enter(span)
        self._running[message.key] = span

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """End it."""
        if self._spans is None or not isinstance(message, JobMessage):
            return
        span = self._running.pop(message.key, None)
        if span is None:
            return
        self._spans.leave()
        if message.settlement is None:
            self._spans.end(span, "failed", "its outcome was lost: a middleware failed")
        else:
            self._spans.end(span, message.settlement.outcome, message.settlement.reason)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """End it."""
        self.after_process_message(broker, message)
