"""Deliver all pending replies, with one task for each."""

from __future__ import annotations

import asyncio
from collections import deque

from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge
from ingress.core.file_jobs import ContentIndex
from ingress.core.file_submission import FileSubmission
from ingress.telegram import messages
from ingress.telegram.chats import Chats
from ingress.telegram.client import CallRefused, ChatMoved, TelegramClient
from ingress.telegram.job_listener import JobListener
from ingress.telegram.pauses import telegram_backoff
from ingress.telegram.pending_reply import PendingReply
from ingress.telegram.reply_delivery import ReplyDelivery
from ingress.telegram.reply_progress import JobSignal, ReplyProgress
from ingress.telegram.update_log import UpdateLog
from ops.logs import get_logger

#: While this many replies are pending, no more updates are handled; Telegram keeps them for a day.
PENDING_MAX = 2_000
_ATTEMPTS_MAX = 5

log = get_logger(__name__)


class Replies:
    """The pending replies of one bot.

    Args:
        client: Client of the Bot API.
        update_log: Stores pending replies.
        bridge: Bridge of the jobs.
        acceptance: Spool of this process.
        chats: Gets to know chats that have another id now.
    """

    def __init__(
        self,
        client: TelegramClient,
        update_log: UpdateLog,
        bridge: Bridge,
        acceptance: Acceptance,
        chats: Chats,
    ) -> None:
        self._client = client
        self._chats = chats
        self._update_log = update_log
        loaded = bridge.loaded
        self._submission = FileSubmission(
            loaded, ContentIndex(acceptance.quick.reader, loaded.settings), acceptance.accept
        )
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        #: Delivered since the update log was read, which may still list them.
        self._delivered: deque[int] = deque(maxlen=PENDING_MAX)
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._signals: dict[str, JobSignal] = {}
        self._listener = JobListener(bridge.store, bridge.reader.keys, self._on_change)
        self._progress = ReplyProgress(client, update_log, bridge.reader, acceptance)

    def start(self) -> None:
        """Start to listen for changes of jobs."""
        self._listener.start()

    async def stop(self) -> None:
        """Stop; the replies stay pending."""
        self._listener.stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def deliver(self, reply: PendingReply) -> None:
        """Start the delivery of a reply, unless it has been started before."""
        if reply.update_id in self._tasks or reply.update_id in self._delivered:
            return
        task = asyncio.create_task(self._deliver(reply))
        self._tasks[reply.update_id] = task
        task.add_done_callback(lambda _: self._on_done(reply.update_id))
        if len(self._tasks) >= PENDING_MAX:
            self._has_room.clear()

    def _on_done(self, update_id: int) -> None:
        self._tasks.pop(update_id, None)
        if len(self._tasks) < PENDING_MAX:
            self._has_room.set()

    async def wait_for_room(self) -> None:
        """Wait until fewer than ``PENDING_MAX`` replies are pending."""
        await self._has_room.wait()

    async def deliver_all(self) -> None:
        """Start the delivery of all pending replies, and have those in progress read their jobs again."""
        for reply in await asyncio.to_thread(self._update_log.pending):
            self.deliver(reply)
        for signal in self._signals.values():
            signal.notify(state=True)

    def _on_change(self, job_id: str, state: bool) -> None:
        self._loop.call_soon_threadsafe(self._notify, job_id, state)

    def _notify(self, job_id: str, state: bool) -> None:
        signal = self._signals.get(job_id)
        if signal is not None:
            signal.notify(state=state)

    async def _deliver(self, reply: PendingReply) -> None:
        """Deliver a reply; after five unexpected errors give it up."""
        delivery = ReplyDelivery(reply, self._client, self._update_log, self._submission)
        backoff = telegram_backoff()
        while True:
            try:
                await self._attempt(delivery)
            except ChatMoved as error:
                await asyncio.to_thread(self._chats.move, delivery.reply.chat_id, error.chat_id)
                if backoff.failures < _ATTEMPTS_MAX:
                    backoff.next_s()
                    await delivery.move(error.chat_id)
                    continue
                log.warning("telegram.reply_refused", **delivery.log_fields, reason=str(error))
            except CallRefused as error:
                log.warning("telegram.reply_refused", **delivery.log_fields, reason=str(error))
            except Exception:
                wait_s = backoff.next_s()
                log.exception("telegram.reply_failed", **delivery.log_fields, tries=backoff.failures)
                if backoff.failures < _ATTEMPTS_MAX:
                    await asyncio.sleep(wait_s)
                    continue
                log.error("telegram.reply_abandoned", **delivery.log_fields)  # noqa: TRY400 (logged above)
            break
        self._delivered.append(reply.update_id)
        await delivery.settle()

    async def _attempt(self, delivery: ReplyDelivery) -> None:
        reply = delivery.reply
        if reply.query_id:
            await self._client.answer_press(reply.query_id, reply.text)
        elif reply.job_id:
            await delivery.show_text(await self._await_outcome(delivery))
        else:
            if reply.attachment is not None and not reply.text:
                await delivery.download(reply.attachment)
            await delivery.show_text(delivery.reply.text)

    async def _await_outcome(self, delivery: ReplyDelivery) -> str:
        job_id = delivery.reply.job_id
        signal = self._signals.setdefault(job_id, JobSignal())
        await asyncio.to_thread(self._listener.subscribe, job_id)
        try:
            first = messages.spooled if delivery.reply.spooled else messages.working
            await delivery.show_first(first(job_id))
            return await self._progress.follow(delivery.reply, signal)
        finally:
            self._signals.pop(job_id, None)
            self._listener.unsubscribe(job_id)
