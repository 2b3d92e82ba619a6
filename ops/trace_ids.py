"""OpenTelemetry: which trace a job belongs to, and the way to whoever collects the spans.

A job's ``trace_id`` travels with it from the door to the worker and on to the jobs that it causes. Nothing
else has to be carried: a trace id in W3C form (``00-TRACE-SPAN-01``) continues the trace of whoever sent the
command, any other text stands for a trace of its own, whose 128-bit number is made from that text. So a door
need not know OpenTelemetry, and the command line stays fast.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from ops.logs import get_logger

if TYPE_CHECKING:
    from ops.otel import Spans

#: https://www.w3.org/TR/trace-context/#traceparent-header, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

log = get_logger(__name__)


class Parent(NamedTuple):
    """The span of whoever sent a command.

    Attributes:
        trace: Number of the trace, 128 bits.
        span: Number of the span, 64 bits.
        flags: Bit 0: it is recorded.
    """

    trace: int
    span: int
    flags: int


def traceparent(text: str | None) -> str | None:
    """Give the header ``traceparent`` of a request as the trace id of its job.

    Args:
        text: The header; None if there was none.

    Returns:
        None if it is not valid, as the standard has it: the trace then begins here.
    """
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def parent_of(trace_id: str) -> Parent | None:
    """Give the span that a job's trace id names, None if it names none."""
    found = _TRACEPARENT.fullmatch(trace_id)
    return None if found is None else Parent(*(int(part, 16) for part in found.groups()))


def trace_number(trace_id: str) -> int:
    """Give the number of a job's trace, 128 bits; the same text gives the same number, and never 0."""
    parent = parent_of(trace_id)
    return _number(f"trace {trace_id}", size_bytes=16) if parent is None else parent.trace


def span_number(job_id: str) -> int:
    """Give the number of a job's own span, 64 bits, by which every worker that tries it finds it."""
    return _number(f"job {job_id}", size_bytes=8)


def _number(text: str, *, size_bytes: int) -> int:
    return max(1, int.from_bytes(hashlib.sha256(text.encode()).digest()[:size_bytes], "big"))


def open_spans(endpoint: str) -> Spans | None:
    """Open the way to the collector; it starts a thread, so this has to happen after the last fork.

    Args:
        endpoint: OTLP over HTTP, ``http://localhost:4318/v1/traces`` for instance; empty for none.

    Returns:
        None if no endpoint is set, or the extra ``otel`` is not installed, which is logged.
    """
    if not endpoint:
        return None
    try:
        from ops.otel import Spans
    except ImportError as error:
        # Other packages bring a part of OpenTelemetry along; only all of it is of use.
        log.warning(
            "tracing.not_installed",
            endpoint=endpoint,
            reason=str(error),
            remedy="pip install 'cmd-bridge[otel]'",
        )
        return None
    return Spans(endpoint)
