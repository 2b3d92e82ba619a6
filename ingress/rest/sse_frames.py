"""How events go over the line: frames, their ids, and where a client that comes back has got to."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from middleware.job.records import JobEvent, JobRecord, utc_now

#: Before the first event and the first piece of output; as an id: the job lies in the spool.
BEGINNING = "0-0"
#: Id of the last word on a job that was refused at the hand-over: the store has no event of it.
ASIDE = "0-1"

_EVENT_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

#: What one event is, for the OpenAPI document.
STREAM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "event": {"type": "string", "enum": ["state", "progress", "output", "reset", "away"]},
        "data": {
            "type": "string",
            "description": "JSON: a JobEvent; {stream, text} for output; {detail} for reset and away.",
        },
        "retry": {"type": "integer", "description": "When to come back, in ms."},
    },
}


def is_event_id(text: str) -> bool:
    """Tell whether this can be the id of an event, or of a piece of output."""
    return _EVENT_ID.fullmatch(text) is not None


def order(event_id: str) -> tuple[int, int]:
    """Give what event ids are sorted by."""
    at, _, number = event_id.partition("-")
    return int(at), int(number)


def frame(event: JobEvent, event_id: str = "") -> bytes:
    """Write an event as it goes over the line.

    Args:
        event: What happened.
        event_id: With which to resume after it; empty: not after this one.
    """
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event.kind}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"


def note(name: str, detail: str) -> bytes:
    """Write something about the stream itself: ``reset`` or ``away``."""
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"detail": detail}) + b"\n\n"


def as_event(record: JobRecord, event_id: str, message: str) -> JobEvent:
    """Give how a job stands as if it had just come to it."""
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
    """Put events that share an id together."""
    groups: list[list[JobEvent]] = []
    for event in events:
        if groups and groups[-1][0].event_id == event.event_id:
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def places(after: str | None, *, with_output: bool) -> tuple[str | None, str]:
    """Read what a stream told last: id of the event, and of the piece of output; '' if none is wanted."""
    event_id, tilde, piece = ("", "", "") if after is None else after.partition("~")
    if not with_output:
        piece = ""
    elif not tilde or not is_event_id(piece):
        piece = BEGINNING
    return (None if after is None else event_id), piece
