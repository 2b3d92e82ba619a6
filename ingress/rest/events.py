"""Server-sent events: what happens to one job, and to all; resumable by ``Last-Event-ID``.

Whoever resumes is told first what the store's stream still holds from there on; if it does not reach back so
far, a ``reset`` says that something was missed and the state has to be read again. The id of an event stands
on the last of those that share it only, so that a stream which breaks off in between repeats them all.

A job that lies in the spool has no events yet. Its stream says so and goes on when it has been handed over.

With ``?output=true`` the stream of one job tells its output too. Output has a count of its own in the store,
so the ids of such a stream name both places: ``EVENT~PIECE``.
"""

from __future__ import annotations

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

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import principal_of, requires
from ingress.core.http.event_broadcast import BEHIND, END, Subscription
from ingress.core.http.output_notifications import OUTPUT, OutputSubscription
from ingress.core.http.stream_limit import StreamSlot
from ingress.core.spooled_jobs import spooled_record
from ingress.rest.contract import problems
from ingress.rest.job_queries import find_followed, is_waiting
from ingress.rest.jobs import JobPart
from ingress.rest.sse_frames import (
    ASIDE,
    BEGINNING,
    as_event,
    frame,
    groups_of,
    is_event_id,
    note,
    order,
    places,
)
from middleware.job.records import JobEvent, JobRecord
from middleware.job.states import FINAL
from ops.errors import JobNotFound, StoreUnreachable
from ops.tokens import Principal

MEDIA_TYPE = "text/event-stream"
#: A stream on which nothing happens says so, or whatever lies between would take it for dead.
_PING_S = 15.0
#: How long a client waits before it comes back, in ms.
_COME_BACK_MS = 1000
_PAGE = 500
#: A job that is refused at the hand-over has no event: its stream looks so often whether it is still to be
#: handed over, at names in a folder only.
_SPOOL_LOOK_S = 2.0

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


class EventStream:
    """One open stream.

    Args:
        app_state: Where the events come from.
        slot: That it occupies.
        principal: Who listens; once the token is revoked nothing more is told.
        job_id: Only of this job; None: of all.
        on_disk: It was in the spool a moment ago; the store has no events of it then.
        after: Of the last event that the client has seen.
        with_output: Whether the job's output is told too.
    """

    def __init__(
        self,
        app_state: AppState,
        slot: StreamSlot,
        principal: Principal,
        *,
        job_id: str | None = None,
        on_disk: bool = False,
        after: str | None = None,
        with_output: bool = False,
    ) -> None:
        after, self._piece = places(after, with_output=with_output)
        self._watch: OutputSubscription | None = None
        self._app_state = app_state
        self._slot = slot
        self._principal = principal
        self._job_id = job_id
        self._is_lost = after is not None and not is_event_id(after)
        # Whoever saw it in the spool is told how it stands now.
        self._resumes = after is not None and not self._is_lost and not on_disk and after != BEGINNING
        self._on_disk: JobRecord | None = None
        self._is_over = False
        self._sent = order(after) if after is not None and self._resumes else (0, 0)
        self._ends_s = time.monotonic() + app_state.rest.stream_max_s

    async def frames(self) -> AsyncIterator[bytes]:
        """Give what goes over the line, until the job has ended, the time is up or the process stops."""
        async with aclosing(self._frames()) as pieces:
            async for piece in pieces:
                if not self._app_state.tokens.holds(self._principal):
                    return
                yield piece

    async def _frames(self) -> AsyncGenerator[bytes]:
        try:
            with ExitStack() as stack:
                heard = stack.enter_context(self._app_state.events.subscribe(self._job_id))
                if self._piece and self._job_id is not None:
                    self._watch = stack.enter_context(self._app_state.output.watch(self._job_id, heard))
                yield f"retry: {_COME_BACK_MS}\n\n".encode()
                async for piece in self._stand(self._before()):
                    yield piece
                if self._is_over:
                    return
                async for piece in self._live(heard):
                    yield piece
        finally:
            self._slot.close()

    async def _before(self) -> AsyncIterator[bytes]:
        """Tell what happened before: since the last event seen, or how the job stands now."""
        if self._is_lost:
            yield note("reset", "that event is not known; read the state again.")
        try:
            if self._resumes:
                async for piece in self._missed():
                    yield piece
            elif self._job_id is not None:
                yield await self._snapshot(self._job_id)
        except StoreUnreachable as error:
            yield note("away", str(error))

    async def _stand(self, told: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Tell how the job stands, and its output up to there; notes whether that was all."""
        async for piece in told:
            yield piece
        self._is_over = self._job_id is not None and await self._has_ended(self._job_id)
        # After that look: an ended job writes no more.
        if self._on_disk is None:
            async for piece in self._output():
                yield piece

    async def _snapshot(self, job_id: str) -> bytes:
        """Tell how the job stands; changes that are told later are not older than this."""
        self._on_disk = await sync_to_thread(spooled_record, self._app_state.read_bridge, job_id)
        if self._on_disk is not None:
            place = ASIDE if self._on_disk.is_final else BEGINNING
            return frame(as_event(self._on_disk, place, self._on_disk.reason), self._id(place))
        newest = await sync_to_thread(self._app_state.read_bridge.follower.newest_event)
        record = await sync_to_thread(self._app_state.read_bridge.reader.job, job_id)
        self._sent = order(newest)
        return frame(as_event(record, newest, record.progress_message), self._id(newest))

    async def _left_spool(self) -> AsyncIterator[bytes]:
        """Tell how a job stands that is not in the spool any more, though no event has said so."""
        job_id = str(self._job_id)
        if await sync_to_thread(is_waiting, self._app_state, job_id):
            return
        before = self._on_disk
        try:
            yield await self._snapshot(job_id)
        except StoreUnreachable:
            # It was handed over, and the store went away again: the next look tells.
            self._on_disk = before
        except JobNotFound:
            yield note("reset", "the job is in neither spool nor store any more; read the state again.")

    def _id(self, event_id: str) -> str:
        return f"{event_id}~{self._piece}" if self._piece else event_id

    async def _output(self) -> AsyncIterator[bytes]:
        """Tell what the job has written since, if that is wanted."""
        if self._watch is not None:
            self._watch.told = False
        reader = self._app_state.read_bridge.reader
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
            yield note("away", str(error))

    async def _missed(self) -> AsyncIterator[bytes]:
        first = True
        while True:
            after = f"{self._sent[0]}-{self._sent[1]}"
            reach, events = await sync_to_thread(self._read_after, after)
            if first and reach is not None and order(reach) > self._sent:
                yield note("reset", "events were missed; read the state again.")
            first = False
            if not events:
                return
            for group in groups_of(events):
                for piece in self._pieces(group):
                    yield piece

    def _read_after(self, after: str) -> tuple[str | None, list[JobEvent]]:
        """Give the id of the oldest event that there is, and the next ones; blocks."""
        follower = self._app_state.read_bridge.follower
        return follower.oldest_event(), follower.events_after(after, _PAGE)

    def _pieces(self, group: list[JobEvent]) -> list[bytes]:
        """Write the events of one id, those that are wanted."""
        self._sent = order(group[0].event_id)
        wanted = [event for event in group if self._job_id in {None, event.job_id}]
        last = self._id(group[0].event_id)
        return [frame(event, last if event is wanted[-1] else "") for event in wanted]

    async def _has_ended(self, job_id: str) -> bool:
        """Tell whether the job has ended; what was told up to here was all then."""
        if self._on_disk is not None:
            return self._on_disk.is_final
        try:
            record = await sync_to_thread(self._app_state.read_bridge.reader.job, job_id)
        except StoreUnreachable:
            return False
        except JobNotFound:
            return True
        return record.is_final

    async def _live(self, heard: Subscription) -> AsyncIterator[bytes]:
        while not self._is_over:
            left_s = self._ends_s - time.monotonic()
            longest_s = _PING_S if self._on_disk is None else _SPOOL_LOOK_S
            item = await heard.next(min(longest_s, left_s))
            if isinstance(item, list):
                told = self._happened(item)
            elif item is OUTPUT:
                told = self._output()
            elif item is END or item is BEHIND or left_s <= 0:
                return
            elif self._on_disk is not None:
                told = self._stand(self._left_spool())
            elif item is None:
                yield b": still here\n\n"
                continue
            else:
                continue
            async for piece in told:
                yield piece

    async def _happened(self, group: list[JobEvent]) -> AsyncIterator[bytes]:
        """Tell events of one id, unless they have been told; notes whether the job has ended with them."""
        self._on_disk = None
        if order(group[0].event_id) <= self._sent:
            return
        if group[-1].status in FINAL:
            async for piece in self._output():
                yield piece
        for frames in self._pieces(group):
            yield frames
        self._is_over = self._job_id is not None and group[-1].status in FINAL


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
    " job. One in the spool is told as 'spooled' until the store takes it. 204 when a client comes back to a"
    " job that has ended and of which it has seen all.",
    guards=[requires("view")],
    media_type=MEDIA_TYPE,
    responses={
        **_STREAM,
        204: ResponseSpec(None, description="The job has ended and everything was told."),
        **problems(404, 409),
    },
)
async def job_events(
    app_state: AppStateDependency,
    request: Request[Any, Any, Any],
    job_id: JobPart,
    last_event_id: LastEventId = None,
    with_output: WithOutput = False,
) -> Response[Any]:
    """Stream what happens to one job."""
    record, on_disk = await sync_to_thread(find_followed, app_state, job_id)
    seen, _ = places(last_event_id, with_output=with_output)
    if seen is not None and is_event_id(seen) and record.is_final and not on_disk:
        missed = await sync_to_thread(app_state.read_bridge.follower.events_after, seen, _PAGE)
        if len(missed) < _PAGE and all(event.job_id != record.job_id for event in missed):
            # What keeps a browser's EventSource from coming back for ever.
            return Response(None, status_code=204)
    if on_disk and record.is_final and seen == ASIDE:
        return Response(None, status_code=204)
    slot = app_state.streams.take()
    stream = EventStream(
        app_state,
        slot,
        principal_of(request),
        job_id=record.job_id,
        on_disk=on_disk,
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
    app_state: AppStateDependency, request: Request[Any, Any, Any], last_event_id: LastEventId = None
) -> Response[Any]:
    """Stream what happens to all jobs."""
    slot = app_state.streams.take()
    return _response(EventStream(app_state, slot, principal_of(request), after=last_event_id))


ROUTES: list[Any] = [job_events, all_events]
