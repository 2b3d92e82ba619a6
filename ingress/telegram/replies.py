"""Gives the replies that are owed: one task for each, from the "working…" message to the last part.

Everything is shown by editing a message whose id has been written down, so a kill at any moment leaves at
worst a "working…" that nobody edits any more; no text is lost, none is shown twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingress.core.drop_folder import AcceptedNames
from ingress.telegram import messages
from ingress.telegram.api import FILE_MAX_BYTES, Api, Gone, Refused
from ingress.telegram.files import lay_down
from ingress.telegram.job_listener import Ear
from ingress.telegram.message_text import split
from ingress.telegram.pending_reply import Owed
from ingress.telegram.rate_limiter import telegram_backoff
from ingress.telegram.reply_progress import Following, Watch
from ingress.telegram.update_log import Book
from ops.errors import BridgeError, SpoolFull
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.core.acceptance import Acceptance
    from ingress.core.bridge import Bridge

#: While so many replies are owed, no more updates are taken; Telegram keeps them for a day.
OWED_MAX = 2_000
#: Between two messages of one long answer there is one that is still to be filled.
_TO_COME = "…"
_TRIES_MAX = 5

log = get_logger(__name__)


class Replies:
    """The replies of one bot.

    Args:
        api: Telegram.
        book: What is owed.
        bridge: Where the jobs are.
        acceptance: Knows what is still in the spool.
    """

    def __init__(self, api: Api, book: Book, bridge: Bridge, acceptance: Acceptance) -> None:
        self._api = api
        self._book = book
        loaded = bridge.loaded
        self._inbox = loaded.workspace.inbox
        self._names = AcceptedNames(loaded.settings.station.ignore)
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # What the book was asked for a moment ago may have been given since.
        self._given: deque[int] = deque(maxlen=OWED_MAX)
        self._room = asyncio.Event()
        self._room.set()
        self._watches: dict[str, Watch] = {}
        self._ear = Ear(bridge.store, bridge.reader.keys, self._heard)
        self._following = Following(api, book, bridge.reader, acceptance)

    def start(self) -> None:
        """Begin to listen for changes of jobs."""
        self._ear.start()

    async def stop(self) -> None:
        """Stop; what is owed stays owed."""
        self._ear.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def adopt(self, owed: Owed) -> None:
        """Give a reply as soon as it can be given; one that is being given already is left alone."""
        if owed.update_id in self._tasks or owed.update_id in self._given:
            return
        task = asyncio.create_task(self._give(owed))
        self._tasks[owed.update_id] = task
        task.add_done_callback(lambda _: self._ended(owed.update_id))
        if len(self._tasks) >= OWED_MAX:
            self._room.clear()

    def _ended(self, update_id: int) -> None:
        self._tasks.pop(update_id, None)
        if len(self._tasks) < OWED_MAX:
            self._room.set()

    async def room(self) -> None:
        """Wait until one more reply may be owed."""
        await self._room.wait()

    async def adopt_all(self) -> None:
        """Adopt everything that the book knows to be owed, and look after what has been adopted before."""
        for owed in await asyncio.to_thread(self._book.pending):
            self.adopt(owed)
        for watch in self._watches.values():
            watch.wake(state=True)

    def _heard(self, job_id: str, state: bool) -> None:
        self._loop.call_soon_threadsafe(self._wake, job_id, state)

    def _wake(self, job_id: str, state: bool) -> None:
        watch = self._watches.get(job_id)
        if watch is not None:
            watch.wake(state=state)

    async def _give(self, owed: Owed) -> None:
        """Give one reply, whatever happens on the way."""
        backoff = telegram_backoff()
        for tries in range(1, _TRIES_MAX + 1):
            try:
                await self._give_once(owed)
            except Refused as error:
                log.warning("telegram.reply_refused", **_about(owed), reason=str(error))
            except Exception:
                log.exception("telegram.reply_failed", **_about(owed), tries=tries)
                if tries < _TRIES_MAX:
                    await asyncio.sleep(backoff.next_s())
                    continue
                log.error("telegram.reply_set_aside", **_about(owed))  # noqa: TRY400 (told above)
            break
        self._given.append(owed.update_id)
        await self._write(self._book.settle, owed)

    async def _give_once(self, owed: Owed) -> None:
        if owed.query_id:
            await self._api.answer_press(owed.query_id, owed.text)
        elif owed.job_id:
            await self._answer(owed)
        else:
            if owed.attachment is not None and not owed.text:
                await self._show_first(owed, "working…")
                owed.text = await self._store_file(owed)
                await self._write(self._book.save, owed)
            await self._say(owed, owed.text)

    async def _answer(self, owed: Owed) -> None:
        """Follow a job, and say how it ended."""
        watch = self._watches.setdefault(owed.job_id, Watch())
        await asyncio.to_thread(self._ear.listen, owed.job_id)
        try:
            first = messages.spooled if owed.spooled else messages.working
            await self._show_first(owed, first(owed.job_id))
            text = await self._following.to_end(owed, watch)
        finally:
            self._watches.pop(owed.job_id, None)
            self._ear.ignore(owed.job_id)
        await self._say(owed, text)

    async def _show_first(self, owed: Owed, text: str) -> None:
        if not owed.message_ids:
            await self._add_message(owed, text)

    async def _say(self, owed: Owed, text: str) -> None:
        """Show a text, in as many messages as it needs."""
        parts = split(text)
        for at, part in enumerate(parts):
            if at == len(owed.message_ids):
                await self._add_message(owed, _TO_COME)
            try:
                await self._api.edit(owed.chat_id, owed.message_ids[at], part)
            except Gone:
                # Somebody deleted it; the answer is still owed.
                del owed.message_ids[at:]
                await self._add_message(owed, _TO_COME)
                await self._api.edit(owed.chat_id, owed.message_ids[at], part)

    async def _add_message(self, owed: Owed, text: str) -> None:
        reply_to = owed.reply_to if not owed.message_ids else None
        owed.message_ids.append(await self._api.send(owed.chat_id, text, reply_to=reply_to))
        await self._write(self._book.save, owed)

    async def _store_file(self, owed: Owed) -> str:
        """Fetch the file of a message into the drop folder, and say what became of it."""
        attachment = owed.attachment
        if attachment is None:
            return ""
        if attachment.size_bytes is not None and attachment.size_bytes > FILE_MAX_BYTES:
            return f"The file is too large: Telegram gives bots at most {FILE_MAX_BYTES // 1_000_000} MB."
        backoff = telegram_backoff()
        for tries in range(1, _TRIES_MAX + 1):
            try:
                name, size_bytes = await lay_down(
                    attachment, self._inbox, self._names, f"telegram-{owed.update_id}", self._api.fetch
                )
            except Refused as error:
                return f"The file was not taken. {error}"
            except OSError as error:
                log.warning("telegram.file_failed", **_about(owed), reason=str(error), tries=tries)
                if tries == _TRIES_MAX:
                    return f"The file could not be stored: {error.strerror}."
                await asyncio.sleep(backoff.next_s())
                continue
            log.info("telegram.file_taken", **_about(owed), name=name, size_bytes=size_bytes)
            noted = " with your note" if attachment.caption else ""
            return f"{name} ({size_bytes} bytes) is in the drop folder{noted}."
        return ""

    async def _write(self, act: Callable[[Owed], None], owed: Owed) -> None:
        """Write something into the book; with the store away and the disk full, as soon as there is room."""
        backoff = telegram_backoff()
        while True:
            try:
                await asyncio.to_thread(act, owed)
            except SpoolFull as error:
                log.warning("telegram.book_full", **_about(owed), reason=str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            except BridgeError as error:
                log.error("telegram.book_refuses", **_about(owed), reason=str(error))  # noqa: TRY400
            return


def _about(owed: Owed) -> dict[str, object]:
    return {"update_id": owed.update_id, "chat_id": owed.chat_id, "job_id": owed.job_id}
