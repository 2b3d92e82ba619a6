"""The numbers of traces and spans, derived from a job's ``trace_id`` and ``job_id``; needs no OpenTelemetry.

A job's ``trace_id`` travels with it from submission to the worker and on to the jobs that it submits. Nothing
else has to be carried: a trace id in W3C form (``00-TRACE-SPAN-01``) continues the trace of the client, any
other text is a trace of its own, whose 128-bit number is derived from that text. So only workers load
OpenTelemetry.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

#: https://www.w3.org/TR/trace-context/#traceparent-header, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Parent(NamedTuple):
    """The span of the client that submitted a job.

    Attributes:
        trace: Number of the trace, 128 bits.
        span: Number of the span, 64 bits.
        flags: Bit 0: the trace is recorded.
    """

    trace: int
    span: int
    flags: int


def traceparent(text: str | None) -> str | None:
    """Return the header ``traceparent`` of a request as the trace id of its job, None if it is not valid.

    Args:
        text: The header; None if there was none. As the standard requires, an invalid one starts a new trace.
    """
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def parent_of(trace_id: str) -> Parent | None:
    """Return the span that a job's trace id names, None if it names none."""
    found = _TRACEPARENT.fullmatch(trace_id)
    return None if found is None else Parent(*(int(part, 16) for part in found.groups()))


def trace_number(trace_id: str) -> int:
    """Return the number of a job's trace, 128 bits; the same text has the same number, never 0."""
    parent = parent_of(trace_id)
    return _number(f"trace {trace_id}", size_bytes=16) if parent is None else parent.trace


def span_number(job_id: str) -> int:
    """Return the number of a job's own span, 64 bits; the same for every worker that runs it."""
    return _number(f"job {job_id}", size_bytes=8)


def _number(text: str, *, size_bytes: int) -> int:
    return max(1, int.from_bytes(hashlib.sha256(text.encode()).digest()[:size_bytes], "big"))
