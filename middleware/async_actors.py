"""Run actors that are coroutine functions."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread

from middleware.broker.broker import BridgeBroker
from middleware.job_middleware import JobMiddleware

#: Longest wait for the start of the event loop, in seconds.
_START_S = 10.0


class AsyncActors(JobMiddleware):
    """Starts Dramatiq's event loop in a worker that declares an ``async`` actor, as its ``AsyncIO`` does.

    It does nothing if there is such a loop already, for instance that of ``AsyncIO``.
    """

    def __init__(self) -> None:
        self._loop: EventLoopThread | None = None

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Start the event loop."""
        is_async = (
            inspect.iscoroutinefunction(inspect.unwrap(actor.fn))
            for actor in broker.actors.values()
            if inspect.isfunction(actor.fn)
        )
        if get_event_loop_thread() is None and any(is_async):
            self._loop = EventLoopThread(logging.getLogger(__name__))
            self._loop.start(timeout=_START_S)
            set_event_loop_thread(self._loop)

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Stop it."""
        if self._loop is not None:
            if get_event_loop_thread() is self._loop:
                set_event_loop_thread(None)
            self._loop.stop()  # type: ignore[no-untyped-call]
            self._loop.join(_START_S)
            self._loop = None
