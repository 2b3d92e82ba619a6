"""OpenTelemetry traces: a span for each job and one for each of its attempts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.job_middleware import JobMiddleware
from ops.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from ops.otel import Spans

log = get_logger(__name__)


class Tracing(JobMiddleware):
    """Sends spans to a collector; does nothing without the extra ``otel``.

    The span of a job begins when the job is accepted and ends when a worker starts it for the first time;
    below it is one span for each attempt. Its trace is that of the job's ``trace_id``, see ``ops.trace_ids``.
    What an instrumented library does in the actor joins the attempt's span. Payloads, results and output are
    never sent; the reason of a failure is.

    It is the outermost middleware, so the outcome is known when its hook runs. An unavailable collector costs
    spans, never a job: they are dropped when the SDK's queue is full.

    Args:
        endpoint: OTLP over HTTP, for instance ``http://localhost:4318/v1/traces``.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._spans: Spans | None = None
        self._running: dict[tuple[str, str], Span] = {}

    def after_process_boot(self, broker: Broker) -> None:
        """Start the exporter, in each worker process: it has a thread, so this comes after the last fork."""
        self._spans = open_spans(self._endpoint)

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Send what is left."""
        if self._spans is not None:
            self._spans.close()

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Start the span of the attempt."""
        if self._spans is None:
            return
        job, begun_ns = message.job, time.time_ns()
        attributes = {
            "bridge.job_id": job.job_id,
            "bridge.job_type": job.job_type,
            "bridge.source": job.source,
        }
        if job.project is not None:
            attributes["bridge.project"] = job.project
        job_span = self._spans.job(
            job.trace,
            job.job_id,
            f"{job.source} {job.job_type}",
            message.delivered.created_ms * 1_000_000,
            attributes,
        )
        if message.attempt == 1:
            job_span.end(begun_ns)
        span = self._spans.attempt(
            job_span,
            f"run {job.job_type}",
            begun_ns,
            {**attributes, "bridge.attempt": message.attempt, "bridge.worker_id": broker.worker_id},
        )
        self._spans.enter(span)
        self._running[message.key] = span

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """End the span of the attempt."""
        if self._spans is None:
            return
        span = self._running.pop(message.key, None)
        if span is None:
            return
        self._spans.leave()
        if message.settlement is None:
            self._spans.end(span, "failed", "its outcome was lost: a middleware failed")
        else:
            self._spans.end(span, message.settlement.outcome, message.settlement.reason)

    def job_skipped(self, broker: BridgeBroker, message: JobMessage) -> None:
        """End the span of the attempt."""
        self.job_ended(broker, message, None)


def open_spans(endpoint: str) -> Spans | None:
    """Return what sends spans, or None if the extra ``otel`` is not installed, which is logged.

    Args:
        endpoint: OTLP over HTTP; empty for none.
    """
    if not endpoint:
        return None
    try:
        from ops.otel import Spans
    except ImportError as error:
        # Other packages install parts of OpenTelemetry; they are of no use without the rest.
        log.warning(
            "tracing.not_installed",
            endpoint=endpoint,
            reason=str(error),
            remedy="pip install 'cmd-bridge[otel]'",
        )
        return None
    return Spans(endpoint)
