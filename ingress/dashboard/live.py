"""Server-sent events for the pages: ``change``, ``output`` and ``tick``.

After a ``change`` a page requests its fragment, so it always shows what the server would render; only output
is sent with its event. Changes in quick succession are sent as one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import msgspec
from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.response import Stream

from ingress.core.http.event_broadcast import BEHIND, END, EventGroup, StreamSignal
from ingress.core.http.output_notifications import OUTPUT
from ingress.core.http.stream_limit import StreamSlot
from ingress.dashboard.job import resolve
from ingress.dashboard.labels import output_text
from ingress.dashboard.sessions import cookies_of
from ingress.dashboard.state import DashboardDependency, DashboardState
from ingress.dashboard.view import visitor_of
from middleware.job.records import OutputChunk
from ops.errors import StoreUnreachable

#: Interval of ticks on an idle stream: the age of heartbeats changes without an event.
_TICK_S = 5.0
#: Minimum time between two changes.
_PAUSE_S = 0.1
_RECONNECT_MS = 1000
#: Chunks of output read and sent at once.
_CHUNKS_MAX = 500
_START = "0-0"


class PageStream:
    """The event stream of one open page.

    Args:
        dashboard: State of the dashboard.
        slot: The slot that the stream occupies.
        cookies: Cookies of the request; the stream ends with the session. None for a bearer token.
        job_id: Job of the page; None for other pages.
        after: Id of the last output chunk that the page has.
    """

    def __init__(
        self,
        dashboard: DashboardState,
        slot: StreamSlot,
        cookies: dict[str, str] | None,
        *,
        job_id: str | None,
        after: str,
    ) -> None:
        self._dashboard = dashboard
        self._slot = slot
        self._cookies = cookies
        self._job_id = job_id
        self._after = after
        self._ends_s = time.monotonic() + dashboard.app_state.rest.stream_max_s

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the frames."""
        try:
            with ExitStack() as stack:
                subscription = stack.enter_context(self._dashboard.app_state.events.subscribe(self._job_id))
                output = None
                if self._job_id is not None:
                    output = stack.enter_context(
                        self._dashboard.app_state.output.watch(self._job_id, subscription)
                    )
                # The job may have changed between page and stream.
                yield f"retry: {_RECONNECT_MS}\n\n".encode() + _frame("change", "")
                async for piece in self._output():
                    yield piece
                while self._is_valid():
                    items = [await subscription.next(_TICK_S)]
                    while items[-1] is not None:
                        items.append(await subscription.next(0))
                    if END in items or BEHIND in items:
                        return
                    if output is not None and OUTPUT in items:
                        output.is_pending = False
                        async for piece in self._output():
                            yield piece
                    if _has_change(items):
                        yield _frame("change", "")
                        await asyncio.sleep(_PAUSE_S)
                    elif items == [None]:
                        yield _frame("tick", "")
        finally:
            self._slot.close()

    def _is_valid(self) -> bool:
        if self._cookies is not None and self._dashboard.sessions.find(self._cookies) is None:
            return False
        return time.monotonic() < self._ends_s

    async def _output(self) -> AsyncIterator[bytes]:
        """Yield the output since the last chunk sent."""
        if self._job_id is None:
            return
        reader = self._dashboard.bridge.reader
        try:
            while True:
                chunks = await sync_to_thread(reader.output, self._job_id, self._after, _CHUNKS_MAX)
                if not chunks:
                    return
                self._after = chunks[-1].entry_id
                yield _frame("output", _encode(chunks), self._after)
        except StoreUnreachable:
            # The page learns it from its next fragment; missing output comes with the next chunk.
            return


def _has_change(items: list[EventGroup | StreamSignal | None]) -> bool:
    return any(item is not None and item is not OUTPUT for item in items)


def _encode(chunks: list[OutputChunk]) -> str:
    return msgspec.json.encode([[chunk.stream, output_text(chunk.text)] for chunk in chunks]).decode()


def _frame(name: str, data: str, event_id: str | None = None) -> bytes:
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


@get("/ui/events")
async def page_events(request: Request[Any, Any, Any], dashboard: DashboardDependency) -> Stream:
    """Stream events to a page."""
    visitor_of(request, dashboard)
    job_id = request.query_params.get("job")
    after = request.headers.get("last-event-id", request.query_params.get("after", _START))
    if job_id is not None:
        job_id = await sync_to_thread(resolve, dashboard, job_id)
    cookies = None if "authorization" in request.headers else cookies_of(request.headers.get("cookie", ""))
    stream = PageStream(
        dashboard,
        dashboard.app_state.streams.take(),
        cookies,
        job_id=job_id,
        after=after if _is_chunk_id(after) else _START,
    )
    return Stream(
        stream.frames(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _is_chunk_id(text: str) -> bool:
    at, dash, number = text.partition("-")
    return bool(dash) and at.isdecimal() and number.isdecimal() and len(text) < 32  # noqa: PLR2004 (two numbers)


ROUTES: list[Any] = [page_events]
