"""Server-sent events of one job or of all jobs; resumable with ``Last-Event-ID``.

A client that resumes first gets the events that the store's stream still has after that id; if the stream
does not reach back that far, a ``reset`` event tells the client to read the state again. Of several events
with the same id only the last frame has it, so that a connection lost in between repeats them all.

A job in the spool has no events yet. Its stream sends the state ``spooled`` and goes on when the store has
accepted the job.

With ``?output=true`` the stream of one job includes its output. Output has ids of its own in the store, so
the ids of such a stream hold both: ``EVENT~CHUNK``.
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
from ingress.rest.contract import JobPart, problems
from ingress.rest.job_queries import find_followed, is_waiting
from ingress.rest.sse_frames import (
    BEGINNING,
    QUARANTINED,
    as_event,
    frame,
    groups_of,
    is_event_id,
    note,
    order,
    positions,
)
from middleware.job.records import JobEvent, JobRecord
from middleware.job.states import FINAL
from ops.errors import JobNotFound, StoreUnreachable
from ops.tokens import Principal

MEDIA_TYPE = "text/event-stream"
#: Interval of comments on an idle stream, so that proxies do not close it.
_PING_S = 15.0
#: Delay of a client's reconnect, in ms.
_RECONNECT_MS = 1000
_PAGE = 500
#: Interval at which the stream of a spooled job checks the names in the spool: quarantining a job causes no
#: event.
_SPOOL_CHECK_S = 2.0

LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="Resume after this event; an unknown id gets a 'reset' event.",
    ),
]


WithOutput = Annotated[
    bool, QueryParameter(name="output", description="Include the job's output, as 'output' events.")
]


class EventStream:
    """One open stream.

    Args:
        app_state: State of the process.
        slot: The slot that the stream occupies.
        principal: The caller; the stream ends when the token is revoked.
        job_id: Events of this job only; None: of all jobs.
        on_disk: The job was in the spool a moment ago, so the store may have no events of it.
        after: Last-Event-ID of the client.
        with_output: Whether to include the job's output.
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
        after, self._chunk_id = positions(after, with_output=with_output)
        self._output_subscription: OutputSubscription | None = None
        self._app_state = app_state
        self._slot = slot
        self._principal = principal
        self._job_id = job_id
        self._is_unknown_id = after is not None and not is_event_id(after)
        # A client that has seen the job in the spool gets its present state.
        self._resumes = after is not None and not self._is_unknown_id and not on_disk and after != BEGINNING
        self._on_disk: JobRecord | None = None
        self._is_complete = False
        self._sent = order(after) if after is not None and self._resumes else (0, 0)
        self._ends_s = time.monotonic() + app_state.rest.stream_max_s

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield frames until the job has finished, the maximum duration is reached or the process stops."""
        async with aclosing(self._frames()) as pieces:
            async for piece in pieces:
                if not self._app_state.tokens.holds(self._principal):
                    return
                yield piece

    async def _frames(self) -> AsyncGenerator[bytes]:
        try:
            with ExitStack() as stack:
                subscription = stack.enter_context(self._app_state.events.subscribe(self._job_id))
                if self._chunk_id and self._job_id is not None:
                    self._output_subscription = stack.enter_context(
                        self._app_state.output.watch(self._job_id, subscription)
                    )
                yield f"retry: {_RECONNECT_MS}\n\n".encode()
                async for piece in self._with_output_so_far(self._before()):
                    yield piece
                if self._is_complete:
                    return
                async for piece in self._live(subscription):
                    yield piece
        finally:
            self._slot.close()

    async def _before(self) -> AsyncIterator[bytes]:
        """Yield what precedes the live events: those since the last one seen, or the job's present state."""
        if self._is_unknown_id:
            yield note("reset", "The event id is unknown; read the state again.")
        try:
            if self._resumes:
                async for piece in self._missed():
                    yield piece
            elif self._job_id is not None:
                yield await self._snapshot(self._job_id)
        except StoreUnreachable as error:
            yield note("away", str(error))

    async def _with_output_so_far(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield frames of the job's state and its output so far; notes whether the stream is complete."""
        async for piece in frames:
            yield piece
        self._is_complete = self._job_id is not None and await self._has_ended(self._job_id)
        # After the state was read: a finished job writes no more output.
        if self._on_disk is None:
            async for piece in self._output():
                yield piece

    async def _snapshot(self, job_id: str) -> bytes:
        """Return the job's state as a frame; later frames are not older than it."""
        self._on_disk = await sync_to_thread(spooled_record, self._app_state.read_bridge, job_id)
        if self._on_disk is not None:
            place = QUARANTINED if self._on_disk.is_final else BEGINNING
            return frame(as_event(self._on_disk, place, self._on_disk.reason), self._id(place))
        newest = await sync_to_thread(self._app_state.read_bridge.follower.newest_event)
        record = await sync_to_thread(self._app_state.read_bridge.reader.job, job_id)
        self._sent = order(newest)
        return frame(as_event(record, newest, record.progress_message), self._id(newest))

    async def _left_spool(self) -> AsyncIterator[bytes]:
        """Yield the state of a job that has left the spool without an event."""
        job_id = str(self._job_id)
        if await sync_to_thread(is_waiting, self._app_state, job_id):
            return
        before = self._on_disk
        try:
            yield await self._snapshot(job_id)
        except StoreUnreachable:
            # The store accepted the job and became unavailable again: the next check finds it.
            self._on_disk = before
        except JobNotFound:
            yield note("reset", "The job is in neither spool nor store any more; read the state again.")

    def _id(self, event_id: str) -> str:
        return f"{event_id}~{self._chunk_id}" if self._chunk_id else event_id

    async def _output(self) -> AsyncIterator[bytes]:
        """Yield the output since the last chunk sent, if the client asked for it."""
        if self._output_subscription is not None:
            self._output_subscription.is_pending = False
        reader = self._app_state.read_bridge.reader
        try:
            while self._chunk_id and self._job_id is not None:
                chunks = await sync_to_thread(reader.output, self._job_id, self._chunk_id, _PAGE)
                if not chunks:
                    return
                for chunk in chunks:
                    self._chunk_id = chunk.entry_id
                    data = msgspec.json.encode({"stream": chunk.stream, "text": chunk.text})
                    event_id = self._id(f"{self._sent[0]}-{self._sent[1]}")
                    yield f"id: {event_id}\nevent: output\ndata: ".encode() + data + b"\n\n"
        except StoreUnreachable as error:
            yield note("away", str(error))

    async def _missed(self) -> AsyncIterator[bytes]:
        first = True
        while True:
            after = f"{self._sent[0]}-{self._sent[1]}"
            reach, events = await sync_to_thread(self._read_after, after)
            if first and reach is not None and order(reach) > self._sent:
                yield note("reset", "Events were missed; read the state again.")
            first = False
            if not events:
                return
            for group in groups_of(events):
                for piece in self._frames_of(group):
                    yield piece

    def _read_after(self, after: str) -> tuple[str | None, list[JobEvent]]:
        """Return the id of the oldest event of the store, and the next events; blocks."""
        follower = self._app_state.read_bridge.follower
        return follower.oldest_event(), follower.events_after(after, _PAGE)

    def _frames_of(self, group: list[JobEvent]) -> list[bytes]:
        """Return the frames of the events of one id that belong to this stream."""
        self._sent = order(group[0].event_id)
        wanted = [event for event in group if self._job_id in {None, event.job_id}]
        last = self._id(group[0].event_id)
        return [frame(event, last if event is wanted[-1] else "") for event in wanted]

    async def _has_ended(self, job_id: str) -> bool:
        """Return whether the job has finished."""
        if self._on_disk is not None:
            return self._on_disk.is_final
        try:
            record = await sync_to_thread(self._app_state.read_bridge.reader.job, job_id)
        except StoreUnreachable:
            return False
        except JobNotFound:
            return True
        return record.is_final

    async def _live(self, subscription: Subscription) -> AsyncIterator[bytes]:
        while not self._is_complete:
            left_s = self._ends_s - time.monotonic()
            longest_s = _PING_S if self._on_disk is None else _SPOOL_CHECK_S
            item = await subscription.next(min(longest_s, left_s))
            if isinstance(item, list):
                frames = self._new_events(item)
            elif item is OUTPUT:
                frames = self._output()
            elif item is END or item is BEHIND or left_s <= 0:
                return
            elif self._on_disk is not None:
                frames = self._with_output_so_far(self._left_spool())
            elif item is None:
                yield b": still here\n\n"
                continue
            else:
                continue
            async for piece in frames:
                yield piece

    async def _new_events(self, group: list[JobEvent]) -> AsyncIterator[bytes]:
        """Yield the frames of a group of new events; notes whether the stream is complete."""
        self._on_disk = None
        if order(group[0].event_id) <= self._sent:
            return
        if group[-1].status in FINAL:
            async for piece in self._output():
                yield piece
        for frames in self._frames_of(group):
            yield frames
        self._is_complete = self._job_id is not None and group[-1].status in FINAL


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
    summary="Events of a job, as they happen",
    description="Server-sent events 'state' and 'progress', with ?output=true also 'output'; starts with the"
    " current state and closes when the job finishes. A job in the spool has the state 'spooled' until the"
    " store accepts it. 204 for a client that reconnects after it has received all events of a finished job.",
    guards=[requires("view")],
    media_type=MEDIA_TYPE,
    responses={
        **_STREAM,
        204: ResponseSpec(None, description="The job has finished and all events were sent."),
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
    """Stream the events of one job."""
    record, on_disk = await sync_to_thread(find_followed, app_state, job_id)
    seen, _ = positions(last_event_id, with_output=with_output)
    if seen is not None and is_event_id(seen) and record.is_final and not on_disk:
        missed = await sync_to_thread(app_state.read_bridge.follower.events_after, seen, _PAGE)
        if len(missed) < _PAGE and all(event.job_id != record.job_id for event in missed):
            # Otherwise a browser's EventSource would reconnect for ever.
            return Response(None, status_code=204)
    if on_disk and record.is_final and seen == QUARANTINED:
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
    summary="Events of all jobs, as they happen",
    description="Server-sent events 'state' and 'progress'; 'reset' if events were missed.",
    guards=[requires("view")],
    media_type=MEDIA_TYPE,
    responses={**_STREAM, **problems()},
)
async def all_events(
    app_state: AppStateDependency, request: Request[Any, Any, Any], last_event_id: LastEventId = None
) -> Response[Any]:
    """Stream the events of all jobs."""
    slot = app_state.streams.take()
    return _response(EventStream(app_state, slot, principal_of(request), after=last_event_id))


ROUTES: list[Any] = [job_events, all_events]
