"""Deliver one reply: its first message, the download of a file, the parts of a long text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ingress.core.file_submission import FileSubmission
from ingress.telegram.client import FILE_MAX_BYTES, CallRefused, MessageGone, TelegramClient, TopicGone
from ingress.telegram.files import describe, submit_attachment
from ingress.telegram.message_text import split
from ingress.telegram.pauses import telegram_backoff
from ingress.telegram.pending_reply import Attachment, PendingReply
from ingress.telegram.update_log import UpdateLog
from middleware.job.ids import new_job_id
from ops.errors import BridgeError, SpoolFull
from ops.logs import get_logger

#: Text of a message of a long answer until it is edited.
_PLACEHOLDER = "…"
_DOWNLOAD_ATTEMPTS_MAX = 5

log = get_logger(__name__)


class ReplyDelivery:
    """Delivers one reply.

    A text is shown by editing messages whose ids have been stored. So a crash leaves at worst a "working…"
    message that is never edited; no text is lost or shown twice.

    Args:
        reply: The reply.
        client: Client of the Bot API.
        update_log: Stores how far the reply has been delivered.
        submission: Submits attachments.

    Attributes:
        reply: The reply in its current state.
    """

    def __init__(
        self, reply: PendingReply, client: TelegramClient, update_log: UpdateLog, submission: FileSubmission
    ) -> None:
        self.reply = reply
        self._client = client
        self._update_log = update_log
        self._submission = submission

    @property
    def log_fields(self) -> dict[str, object]:
        """Fields that identify the reply in log lines."""
        return {
            "update_id": self.reply.update_id,
            "chat_id": self.reply.chat_id,
            "job_id": self.reply.job_id,
        }

    async def show_first(self, text: str) -> None:
        """Send the first message, unless it has been sent before."""
        if not self.reply.message_ids:
            await self._add_message(text)

    async def show_text(self, text: str) -> None:
        """Show the final text, in as many messages as it needs."""
        for at, part in enumerate(split(text)):
            if at == len(self.reply.message_ids):
                await self._add_message(_PLACEHOLDER)
            try:
                await self._client.edit(self.reply.chat_id, self.reply.message_ids[at], part)
            except MessageGone:
                # A user has deleted the message; send another one.
                self._replace(message_ids=self.reply.message_ids[:at])
                await self._add_message(_PLACEHOLDER)
                await self._client.edit(self.reply.chat_id, self.reply.message_ids[at], part)

    async def download(self, attachment: Attachment) -> None:
        """Download an attachment and submit its job; the answer becomes the text of the reply."""
        if not self.reply.file_job_id:
            self._replace(file_job_id=new_job_id())
            await self._write(self._update_log.save)
        await self.show_first("working…")
        self._replace(text=await self._download(attachment))
        await self._write(self._update_log.save)

    async def move(self, chat_id: int) -> None:
        """Continue in the chat that has replaced that of the reply; messages have other ids there."""
        self._replace(chat_id=chat_id, thread_id=None, reply_to=None, message_ids=())
        await self._write(self._update_log.save)

    async def settle(self) -> None:
        """Record that the reply has been delivered."""
        await self._write(self._update_log.settle)

    async def _add_message(self, text: str) -> None:
        try:
            message_id = await self._send(text)
        except TopicGone as error:
            log.warning("telegram.topic_gone", **self.log_fields, reason=str(error))
            self._replace(thread_id=None, reply_to=None)
            message_id = await self._send(text)
        self._replace(message_ids=(*self.reply.message_ids, message_id))
        await self._write(self._update_log.save)

    async def _send(self, text: str) -> int:
        reply = self.reply
        reply_to = None if reply.message_ids else reply.reply_to
        return await self._client.send(reply.chat_id, text, reply_to=reply_to, thread_id=reply.thread_id)

    def _replace(self, **changes: object) -> None:
        self.reply = msgspec.structs.replace(self.reply, **changes)

    async def _download(self, attachment: Attachment) -> str:
        if attachment.size_bytes is not None and attachment.size_bytes > FILE_MAX_BYTES:
            return f"The file is too large. Telegram's limit for bots is {FILE_MAX_BYTES // 1_000_000} MB."
        backoff = telegram_backoff()
        while True:
            try:
                answer = await submit_attachment(
                    attachment, self._submission, self.reply.file_job_id, self._client.download
                )
            except CallRefused as error:
                return f"The file could not be downloaded. {error}"
            except OSError as error:
                wait_s = backoff.next_s()
                log.warning(
                    "telegram.file_failed", **self.log_fields, reason=str(error), tries=backoff.failures
                )
                if backoff.failures == _DOWNLOAD_ATTEMPTS_MAX:
                    return f"The file could not be stored: {error.strerror}."
                await asyncio.sleep(wait_s)
                continue
            log.info(
                "telegram.file_submitted",
                **{**self.log_fields, "job_id": answer.job_id},
                name=answer.name,
                size_bytes=answer.size_bytes,
                status=answer.status,
            )
            return describe(answer, has_note=bool(attachment.caption))

    async def _write(self, record: Callable[[PendingReply], None]) -> None:
        """Record the reply in the update log; if neither store nor disk accepts it, retry until one does."""
        backoff = telegram_backoff()
        while True:
            try:
                await asyncio.to_thread(record, self.reply)
            except SpoolFull as error:
                log.warning("telegram.update_log_full", **self.log_fields, reason=str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            except BridgeError as error:
                log.error("telegram.update_log_failed", **self.log_fields, reason=str(error))  # noqa: TRY400
            return
