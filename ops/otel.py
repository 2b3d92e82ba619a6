"""Spans with ids of our choice, sent in batches; the only module that needs the extra ``otel``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ops.environment import variable
from ops.http.environment import export_for_requests
from ops.trace_ids import parent_of, span_number, trace_number

#: A collector that does not answer costs a batch of spans, and delays a stopping worker by _CLOSE_TIMEOUT_S.
_EXPORT_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 3.0


class _Ids(RandomIdGenerator):
    """Random ids, except for a span for which the thread has chosen its ids."""

    def __init__(self) -> None:
        self._next = threading.local()

    def choose(self, trace: int, span: int) -> None:
        """Set the ids of the next span of this thread; that of the trace counts only if it has no parent."""
        self._next.trace, self._next.span = trace, span

    def done(self) -> None:
        """Use random ids again."""
        self._next.trace = self._next.span = 0

    def generate_trace_id(self) -> int:
        """Return the id of the next trace."""
        chosen: int = getattr(self._next, "trace", 0)
        return chosen if chosen else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        chosen: int = getattr(self._next, "span", 0)
        return chosen if chosen else super().generate_span_id()


class Spans:
    """Creates the spans of jobs and sends them; the SDK's limits bound memory and time.

    Args:
        endpoint: OTLP over HTTP.
    """

    def __init__(self, endpoint: str) -> None:
        self._ids = _Ids()
        # OpenTelemetry's environment variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
        # OTEL_EXPORTER_OTLP_HEADERS, ...) still work: the SDK reads them.
        about = {"host.name": socket.gethostname()}
        if not variable("OTEL_SERVICE_NAME"):
            about["service.name"] = "cmd-bridge"
        self._provider = TracerProvider(
            resource=Resource.create(about), id_generator=self._ids, shutdown_on_exit=False
        )
        export_for_requests()
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("cmd-bridge")

    def job(
        self, trace_id: str, job_id: str, name: str, begun_ns: int, attributes: Mapping[str, str]
    ) -> Span:
        """Start the span of a job, which lasts from its submission to its first start.

        For a later attempt it is started again, as the parent, and must not be ended: it has been sent
        already.

        Args:
            trace_id: Trace id of the job.
            job_id: Id of the job.
            name: Name of the span.
            begun_ns: When the job was accepted, in nanoseconds since 1970.
            attributes: Attributes of the span.
        """
        parent = parent_of(trace_id)
        context = Context()
        if parent is not None:
            remote = SpanContext(
                parent.trace, parent.span, is_remote=True, trace_flags=TraceFlags(parent.flags)
            )
            context = set_span_in_context(NonRecordingSpan(remote), context)
        self._ids.choose(trace_number(trace_id), span_number(job_id))
        try:
            return self._tracer.start_span(
                name, context, SpanKind.PRODUCER, attributes=dict(attributes), start_time=begun_ns
            )
        finally:
            self._ids.done()

    def attempt(self, job: Span, name: str, begun_ns: int, attributes: Mapping[str, str | int]) -> Span:
        """Start the span of an attempt.

        Args:
            job: The span of the job.
            name: Name of the span.
            begun_ns: When the attempt began, in nanoseconds since 1970.
            attributes: Attributes of the span.
        """
        context = set_span_in_context(job, Context())
        return self._tracer.start_span(
            name, context, SpanKind.CONSUMER, attributes=dict(attributes), start_time=begun_ns
        )

    @staticmethod
    def enter(span: Span) -> None:
        """Make a span the current one of this thread, so that instrumented libraries can join it."""
        contexts.attach(set_span_in_context(span))

    @staticmethod
    def leave() -> None:
        """Clear the current span of this thread."""
        contexts.attach(Context())

    @staticmethod
    def end(span: Span, outcome: str, reason: str) -> None:
        """End the span of an attempt.

        Args:
            span: The span, from ``attempt``.
            outcome: Outcome of the attempt.
            reason: Its reason in one sentence; may be empty.
        """
        span.set_attribute("bridge.outcome", outcome)
        if outcome in {"failed", "retrying"}:
            span.set_status(StatusCode.ERROR, reason)
        span.end()

    def close(self) -> None:
        """Send what is left; takes at most 3 s."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_CLOSE_TIMEOUT_S)
