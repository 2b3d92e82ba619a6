"""Server-sent events: what happens to one job, and to all; resumable by ``Last-Event-ID``.

Whoever resumes is told first what the store's stream still holds from there on; if it does not reach back so
far, a ``reset`` says that something was missed and the state has to be read again. The id of an event stands
on the last of those that share it only, so that a stream which breaks off in between repeats them all.

With ``?output=true`` the stream of one job tells its output too. Output has a count of its own in the store,
so the ids of such a stream name both places: ``EVENT~PIECE``.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from ingress.rest.auth import principal_of, requires
from ingress.rest.contract import problems
from ingress.rest.door import Door, OpenDoor
from ingress.rest.fanout import BEHIND, END, Subscription
from ingress.rest.jobs import JobPart
from ingress.rest.reading import find_job
from ingress.rest.slots import Slot
from ingress.rest.wakes import OUTPUT, Watch
from middleware.job.records import JobEvent, JobRecord, utc_now
from middleware.job.states import FINAL
from ops.errors import StoreUnreachable
from ops.tokens import Principal

MEDIA_TYPE = "text/event-stream"
#: A stream on which nothing happens says so, or whatever lies between would take it for dead.
_PING_S = 15.0
#: How long a client waits before it comes back, in ms.
_COME_BACK_MS = 1000
_PAGE = 500
#: Before the first piece of output.
_NO_PIECE = "0-0"

LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="Go on after this event; one that is not known gets a 'reset'.",
    ),
]


WithOutput = Annotated[
    bool, QueryParameter(name="output", description="Tell the output too, as events 'output'.")
]

_EVENT_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


def _order(event_id: str) -> tuple[int, int]:
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


def _note(name: str, detail: str) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"detail": detail}) + b"\n\n"


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


class EventStream:
    """One open stream.

    Args:
        door: Where the events come from.
        slot: That it occupies.
        principal: Who listens; once the token is revoked nothing more is told.
        job_id: Only of this job; None: of all.
        after: Of the last event that the client has seen.
        with_output: Whether the job's output is told too.
    """

    def __init__(
        self,
        door: Door,
        slot: Slot,
        principal: Principal,
        *,
        job_id: str | None = None,
        after: str | None = None,
        with_output: bool = False,
    ) -> None:
        after, self._piece = _places(after, with_output=with_output)
        self._watch: Watch | None = None
        self._door = door
        self._slot = slot
        self._principal = principal
        self._job_id = job_id
        self._is_lost = after is not None and _EVENT_ID.fullmatch(after) is None
        self._resumes = after is not None and not self._is_lost
        self._sent = _order(after) if after is not None and self._resumes else (0, 0)
        self._ends_s = time.monotonic() + door.rest.stream_max_s

    async def frames(self) -> AsyncIterator[bytes]:
        """Give what goes over the line, until the job has ended, the time is up or the process stops."""
        async with aclosing(self._frames()) as pieces:
            async for piece in pieces:
                if not self._door.tokens.holds(self._principal):
                    return
                yield piece

    async def _frames(self) -> AsyncGenerator[bytes]:
        try:
            with ExitStack() as stack:
                heard = stack.enter_context(self._door.fanout.subscribe(self._job_id))
                if self._piece and self._job_id is not None:
                    self._watch = stack.enter_context(self._door.wakes.watch(self._job_id, heard))
                yield f"retry: {_COME_BACK_MS}\n\n".encode()
                async for piece in self._before():
                    yield piece
                is_over = self._job_id is not None and await self._is_over()
                # After that look: an ended job writes no more.
                async for piece in self._output():
                    yield piece
                if is_over:
                    return
                async for piece in self._live(heard):
                    yield piece
        finally:
            self._slot.close()

    async def _before(self) -> AsyncIterator[bytes]:
        """Tell what happened before: since the last event seen, or how the job stands now."""
        if self._is_lost:
            yield _note("reset", "that event is not known; read the state again.")
        try:
            if self._resumes:
                async for piece in self._missed():
                    yield piece
            elif self._job_id is not None:
                yield await self._snapshot(self._job_id)
        except StoreUnreachable as error:
            yield _note("away", str(error))

    async def _snapshot(self, job_id: str) -> bytes:
        """Tell how the job stands; changes that are told later are not older than this."""
        newest = await sync_to_thread(self._door.reading.follower.newest_event)
        record = await sync_to_thread(self._door.reading.reader.job, job_id)
        self._sent = _order(newest)
        return frame(_as_event(record, newest), self._id(newest))

    def _id(self, event_id: str) -> str:
        return f"{event_id}~{self._piece}" if self._piece else event_id

    async def _output(self) -> AsyncIterator[bytes]:
        """Tell what the job has written since, if that is wanted."""
        if self._watch is not None:
            self._watch.told = False
        reader = self._door.reading.reader
        try:
            while self._piece and self._job_id is not None:
                chunks = await sync_to_thread(reader.output, self._job_id, self._piece, _PAGE)
                if not chunks:
                    return
                for chunk in chunks:
                    self._piece = chunk.entry_id
                    said = msgspec.json.encode({"stream": chunk.stream, "text": chunk.text})
                    event_id = self._id(f"{self._sent[0]}-{self._sent[1]}")
                    yield f"id: {event_id}\nevent: output\ndata: ".encode() + said + b"\n\n"
        except StoreUnreachable as error:
            yield _note("away", str(error))

    async def _missed(self) -> AsyncIterator[bytes]:
        first = True
        while True:
            after = f"{self._sent[0]}-{self._sent[1]}"
            reach, events = await sync_to_thread(self._read_after, after)
            if first and reach is not None and _order(reach) > self._sent:
                yield _note("reset", "events were missed; read the state again.")
            first = False
            if not events:
                return
            for group in _groups(events):
                for piece in self._pieces(group):
                    yield piece

    def _read_after(self, after: str) -> tuple[str | None, list[JobEvent]]:
        """Give the id of the oldest event that there is, and the next ones; blocks."""
        follower = self._door.reading.follower
        return follower.oldest_event(), follower.events_after(after, _PAGE)

    def _pieces(self, group: list[JobEvent]) -> list[bytes]:
        """Write the events of one id, those that are wanted."""
        self._sent = _order(group[0].event_id)
        wanted = [event for event in group if self._job_id in {None, event.job_id}]
        last = self._id(group[0].event_id)
        return [frame(event, last if event is wanted[-1] else "") for event in wanted]

    async def _is_over(self) -> bool:
        """Tell whether the job has ended; what was told up to here was all then."""
        try:
            record = await sync_to_thread(self._door.reading.reader.job, str(self._job_id))
        except StoreUnreachable:
            return False
        return record.is_final

    async def _live(self, heard: Subscription) -> AsyncIterator[bytes]:
        while True:
            left_s = self._ends_s - time.monotonic()
            item = await heard.next(min(_PING_S, left_s))
            if isinstance(item, list):
                if _order(item[0].event_id) <= self._sent:
                    continue
                if item[-1].status in FINAL:
                    async for piece in self._output():
                        yield piece
                for piece in self._pieces(item):
                    yield piece
                if self._job_id is not None and item[-1].status in FINAL:
                    return
            elif item is OUTPUT:
                async for piece in self._output():
                    yield piece
            elif item is END or item is BEHIND or left_s <= 0:
                return
            elif item is None:
                yield b": still here\n\n"


def _places(after: str | None, *, with_output: bool) -> tuple[str | None, str]:
    """Read what a stream told last: id of the event, and of the piece of output; '' if none is wanted."""
    event_id, tilde, piece = ("", "", "") if after is None else after.partition("~")
    if not with_output:
        piece = ""
    elif not tilde or _EVENT_ID.fullmatch(piece) is None:
        piece = _NO_PIECE
    return (None if after is None else event_id), piece


def _groups(events: list[JobEvent]) -> list[list[JobEvent]]:
    groups: list[list[JobEvent]] = []
    for event in events:
        if groups and groups[-1][0].event_id == event.event_id:
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def _as_event(record: JobRecord, event_id: str) -> JobEvent:
    return JobEvent(
        event_id=event_id,
        job_id=record.job_id,
        kind="state",
        status=record.status,
        progress=record.progress,
        message=record.progress_message,
        at=utc_now(),
    )


def _response(stream: EventStream) -> Stream:
    return Stream(
        stream.frames(),
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


_STREAM = {
    200: ResponseSpec(str, generate_examples=False, description="Server-sent events.", media_type=MEDIA_TYPE)
}


@get(
    "/v1/jobs/{job_id:str}/events",
    operation_id="jobEvents",
    summary="What happens to a job, as it happens",
    description="Server-sent events 'state' and 'progress', with ?output=true also 'output'; ends with the"
    " job. 204 when a client comes back to a job that has ended and of which it has seen all.",
    guards=[requires("view")],
    media_type=MEDIA_TYPE,
    responses={
        **_STREAM,
        204: ResponseSpec(None, description="The job has ended and everything was told."),
        **problems(404, 409),
    },
)
async def job_events(
    door: OpenDoor,
    request: Request[Any, Any, Any],
    job_id: JobPart,
    last_event_id: LastEventId = None,
    with_output: WithOutput = False,
) -> Response[Any]:
    """Stream what happens to one job."""
    record = await sync_to_thread(find_job, door, job_id)
    seen, _ = _places(last_event_id, with_output=with_output)
    if seen is not None and _EVENT_ID.fullmatch(seen) and record.is_final:
        missed = await sync_to_thread(door.reading.follower.events_after, seen, _PAGE)
        if len(missed) < _PAGE and all(event.job_id != record.job_id for event in missed):
            # What keeps a browser's EventSource from coming back for ever.
            return Response(None, status_code=204)
    slot = door.streams.take()
    stream = EventStream(
        door,
        slot,
        principal_of(request),
        job_id=record.job_id,
        after=last_event_id,
        with_output=with_output,
    )
    return _response(stream)


@get(
    "/v1/events",
    operation_id="allEvents",
    summary="What happens to all jobs, as it happens",
    description="Server-sent events 'state' and 'progress', 'reset' when some were missed.",
    guards=[requires("view")],
    media_type=MEDIA_TYPE,
    responses={**_STREAM, **problems()},
)
async def all_events(
    door: OpenDoor, request: Request[Any, Any, Any], last_event_id: LastEventId = None
) -> Response[Any]:
    """Stream what happens to all jobs."""
    slot = door.streams.take()
    return _response(EventStream(door, slot, principal_of(request), after=last_event_id))


ROUTES: list[Any] = [job_events, all_events]
