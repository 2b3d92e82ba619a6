"""Frames of the event streams: format, ids, and the position of a client that resumes."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from middleware.job.records import JobEvent, JobRecord, utc_now

#: Position before the first event and the first chunk of output; as an event's id: the job is in the spool.
BEGINNING = "0-0"
#: Id of the last event of a job that is quarantined in the spool: the store has no event of it.
QUARANTINED = "0-1"

_EVENT_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

#: Schema of an event, for the OpenAPI document.
STREAM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Value for Last-Event-ID."},
        "event": {"type": "string", "enum": ["state", "progress", "output", "reset", "away"]},
        "data": {
            "type": "string",
            "description": "JSON: a JobEvent; {stream, text} for output; {detail} for reset and away.",
        },
        "retry": {"type": "integer", "description": "Delay before a reconnect, in ms."},
    },
}


def is_event_id(text: str) -> bool:
    """Return whether the text has the form of an event id, which is also that of an output chunk."""
    return _EVENT_ID.fullmatch(text) is not None


def order(event_id: str) -> tuple[int, int]:
    """Return the sort key of an event id."""
    at, _, number = event_id.partition("-")
    return int(at), int(number)


def frame(event: JobEvent, event_id: str = "") -> bytes:
    """Return the frame of an event.

    Args:
        event: The event.
        event_id: Id for resuming after it; empty if a client cannot resume after it.
    """
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event.kind}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"


def note(name: str, detail: str) -> bytes:
    """Return a frame about the stream itself: ``reset`` or ``away``."""
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"detail": detail}) + b"\n\n"


def as_event(record: JobRecord, event_id: str, message: str) -> JobEvent:
    """Return the present state of a job as an event."""
    return JobEvent(
        event_id=event_id,
        job_id=record.job_id,
        kind="state",
        status=record.status,
        progress=record.progress,
        message=message,
        at=utc_now(),
    )


def groups_of(events: list[JobEvent]) -> list[list[JobEvent]]:
    """Return the events in groups that share an id."""
    groups: list[list[JobEvent]] = []
    for event in events:
        if groups and groups[-1][0].event_id == event.event_id:
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def positions(after: str | None, *, with_output: bool) -> tuple[str | None, str]:
    """Return the ids of the last event and output chunk from a Last-Event-ID; '' without output."""
    event_id, tilde, chunk = ("", "", "") if after is None else after.partition("~")
    if not with_output:
        chunk = ""
    elif not tilde or not is_event_id(chunk):
        chunk = BEGINNING
    return (None if after is None else event_id), chunk
