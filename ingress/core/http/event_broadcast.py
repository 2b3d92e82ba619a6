"""One thread follows the store's events and hands them to every stream and wait of this process.

So a stream costs a queue and no thread, and the store has one reader however many look on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from ingress.core.bridge import Bridge
from middleware.job.records import JobEvent
from ops.logs import get_logger
from ops.threads import start_duty

#: A stream that is further behind than this is ended; its client resumes and reads what it missed.
QUEUE_MAX = 2_000
#: How often the thread looks whether it is to stop while nothing happens.
_IDLE_S = 1.0
#: What is on its way from the thread to the event loop; more is dropped, and everybody told to look again.
_INBOX_MAX = 50_000

#: Events that share an id: one, or those of all jobs that were taken in together.
EventGroup: TypeAlias = list[JobEvent]

log = get_logger(__name__)


class StreamSignal:
    """Something that is no event.

    Args:
        name: For logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name


#: Events may have been missed: whoever waits for a state reads it again.
LOOK_AGAIN: Final = StreamSignal("look again")
#: The stream has fallen behind too far.
BEHIND: Final = StreamSignal("behind")
#: The process is stopping.
END: Final = StreamSignal("end")


class Subscription:
    """What one stream or wait hears; used in the event loop only.

    Args:
        job_id: Only of this job; None: of all.
    """

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self._queue: asyncio.Queue[EventGroup | StreamSignal] = asyncio.Queue(QUEUE_MAX + 1)
        self._behind = False

    def put(self, item: EventGroup | StreamSignal) -> None:
        """Add what happened; one that is too far behind hears of it last, and then nothing more."""
        if self._behind:
            return
        if self._queue.qsize() >= QUEUE_MAX and item is not END:
            self._behind = True
            item = BEHIND
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(item)

    async def next(self, timeout_s: float) -> EventGroup | StreamSignal | None:
        """Wait for what happens next.

        Args:
            timeout_s: For how long at most.

        Returns:
            It, or None if the time ran out.
        """
        with contextlib.suppress(asyncio.QueueEmpty):
            return self._queue.get_nowait()
        if timeout_s <= 0:
            return None
        try:
            return await asyncio.wait_for(self._queue.get(), timeout_s)
        except TimeoutError:
            return None


class EventBroadcast:
    """Hands events on.

    Args:
        bridge: Whose events.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._inbox: deque[EventGroup | StreamSignal] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._everything: set[Subscription] = set()
        self._by_job: dict[str, set[Subscription]] = {}
        self._listeners: list[Callable[[JobEvent], None]] = []

    def listen(self, listener: Callable[[JobEvent], None]) -> None:
        """Have a function called with every event, in the thread; it must not block."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start to follow; called in the event loop that the subscriptions live in."""
        self._loop = asyncio.get_running_loop()
        start_duty("fanout", self._follow, ended=self._stopping.is_set)

    def stop(self) -> None:
        """End every stream; safe to call from a signal handler."""
        self._stopping.set()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell_all, END)

    @contextlib.contextmanager
    def subscribe(self, job_id: str | None = None) -> Iterator[Subscription]:
        """Hear what happens, within this block.

        Args:
            job_id: To this job; None: to all.
        """
        subscription = Subscription(job_id)
        group = self._everything if job_id is None else self._by_job.setdefault(job_id, set())
        group.add(subscription)
        if self._stopping.is_set():
            subscription.put(END)
        try:
            yield subscription
        finally:
            group.discard(subscription)
            if job_id is not None and not group and self._by_job.get(job_id) is group:
                del self._by_job[job_id]

    def _follow(self) -> None:
        self._bridge.follower.watch_events(
            self._hand,
            stopping=self._stopping,
            idle_s=_IDLE_S,
            on_connected=lambda: self._hand(LOOK_AGAIN),
            on_outage=lambda error: log.warning("rest.events_away", reason=str(error)),
        )

    def _hand(self, item: EventGroup | StreamSignal) -> None:
        """Pass something to the event loop; one wake-up serves all that has come up to then."""
        for event in () if isinstance(item, StreamSignal) else item:
            for listener in self._listeners:
                listener(event)
        with self._lock:
            if len(self._inbox) >= _INBOX_MAX:
                self._inbox.clear()
                item = LOOK_AGAIN
            self._inbox.append(item)
            if self._scheduled:
                return
            self._scheduled = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        with self._lock:
            items = list(self._inbox)
            self._inbox.clear()
            self._scheduled = False
        for item in items:
            if isinstance(item, StreamSignal):
                self._tell_all(item)
                continue
            for subscription in self._everything:
                subscription.put(item)
            for event in item if self._by_job else ():
                for subscription in self._by_job.get(event.job_id, ()):
                    subscription.put([event])

    def _tell_all(self, mark: StreamSignal) -> None:
        for group in (self._everything, *self._by_job.values()):
            for subscription in group:
                subscription.put(mark)
