"""Distribute the store's events to all streams and waits of this process.

One thread follows the events, so a stream costs a queue and no thread, and the store has one reader however
many streams are open.
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

#: A stream with more unsent events than this is closed; its client resumes and reads what it missed.
QUEUE_MAX = 2_000
#: Interval at which the idle thread checks whether it is to stop.
_IDLE_S = 1.0
#: Events in transit from the thread to the event loop; beyond it they are replaced by LOOK_AGAIN.
_INBOX_MAX = 50_000

#: Events that share an id: one, or those of all jobs that were enqueued together.
EventGroup: TypeAlias = list[JobEvent]

log = get_logger(__name__)


class StreamSignal:
    """A signal to a stream that is not an event of a job.

    Args:
        name: For logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name


#: Events may have been missed: waits read the state again.
LOOK_AGAIN: Final = StreamSignal("look again")
#: The stream has too many unsent events.
BEHIND: Final = StreamSignal("behind")
#: The process is stopping.
END: Final = StreamSignal("end")


class Subscription:
    """The queue of one stream or wait; used in the event loop only.

    Args:
        job_id: Receive the events of this job only; None: of all jobs.
    """

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self._queue: asyncio.Queue[EventGroup | StreamSignal] = asyncio.Queue(QUEUE_MAX + 1)
        self._behind = False

    def put(self, item: EventGroup | StreamSignal) -> None:
        """Append an item; a full queue gets ``BEHIND`` as its last one."""
        if self._behind:
            return
        if self._queue.qsize() >= QUEUE_MAX and item is not END:
            self._behind = True
            item = BEHIND
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(item)

    async def next(self, timeout_s: float) -> EventGroup | StreamSignal | None:
        """Wait for the next item.

        Args:
            timeout_s: Maximum wait.

        Returns:
            The item, or None after the time-out.
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
    """Distributes events to subscriptions.

    Args:
        bridge: The bridge whose events are followed.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._inbox: deque[EventGroup | StreamSignal] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._all_jobs: set[Subscription] = set()
        self._by_job: dict[str, set[Subscription]] = {}
        self._listeners: list[Callable[[JobEvent], None]] = []

    def listen(self, listener: Callable[[JobEvent], None]) -> None:
        """Register a function that the thread calls with each event; it must not block."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start the thread; called in the event loop of the subscriptions."""
        self._loop = asyncio.get_running_loop()
        start_duty("event-broadcast", self._follow, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop, and end all streams; safe to call from a signal handler."""
        self._stopping.set()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._put_to_all, END)

    @contextlib.contextmanager
    def subscribe(self, job_id: str | None = None) -> Iterator[Subscription]:
        """Subscribe to events within this block.

        Args:
            job_id: Of this job; None: of all jobs.
        """
        subscription = Subscription(job_id)
        group = self._all_jobs if job_id is None else self._by_job.setdefault(job_id, set())
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
            self._pass_on,
            stopping=self._stopping,
            idle_s=_IDLE_S,
            on_connected=lambda: self._pass_on(LOOK_AGAIN),
            on_outage=lambda error: log.warning("rest.events_away", reason=str(error)),
        )

    def _pass_on(self, item: EventGroup | StreamSignal) -> None:
        """Pass an item to the event loop; one wake-up serves all items that have accumulated."""
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
                self._put_to_all(item)
                continue
            for subscription in self._all_jobs:
                subscription.put(item)
            for event in item if self._by_job else ():
                for subscription in self._by_job.get(event.job_id, ()):
                    subscription.put([event])

    def _put_to_all(self, signal: StreamSignal) -> None:
        for group in (self._all_jobs, *self._by_job.values()):
            for subscription in group:
                subscription.put(signal)
