"""Runs a coroutine in the thread of a job and yields what it produces; an interrupt cancels its task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from actors.llm.provider import Usage
from middleware.context import JobContext

#: Takes a piece of an answer, or its usage.
Emit = Callable[[str | Usage], None]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that can close the connections opened in it.

    A task that is cancelled during a TLS handshake leaves its connection to the garbage collector.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opened: list[asyncio.Transport] = []

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Open a connection; see ``asyncio``."""
        transport, protocol = await super().create_connection(*args, **options)
        self._opened.append(transport)
        return transport, protocol

    async def abort_connections(self) -> None:
        """Close the connections that are open."""
        for transport in self._opened:
            transport.abort()
        await asyncio.sleep(0)  # in which they are closed


def stream_task(work: Callable[[Emit], Awaitable[None]], context: JobContext) -> Iterator[str | Usage]:
    """Yield what a coroutine passes to its argument, as it comes.

    The coroutine has an event loop of its own, which runs while the next item is waited for. It ends before
    this iterator does: when it returns, when the job is interrupted (its task is cancelled, so its
    connections are closed at once), or when the caller closes the iterator.

    Args:
        work: Called with a function that takes an item; the coroutine that produces the items.
        context: The job of the current thread.

    Raises:
        JobInterrupted: The job was cancelled or ran out of time.
    """
    loop = _Loop()
    items: asyncio.Queue[str | Usage | None] = asyncio.Queue()

    async def produce() -> None:
        try:
            await work(items.put_nowait)
        finally:
            items.put_nowait(None)

    task = loop.create_task(produce())

    def cancel(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the task has ended
            loop.call_soon_threadsafe(task.cancel)

    try:
        with context.on_interrupt(cancel):
            while (item := loop.run_until_complete(items.get())) is not None:
                yield item
            try:
                loop.run_until_complete(task)
            except (asyncio.CancelledError, Exception):
                # A cancelled exchange may end with an error of any kind; the job knows why it ended.
                context.check_cancelled()
                raise
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.abort_connections())
        # Without its executor: a name that is being resolved cannot be cancelled, and nothing waits for it.
        loop.close()
