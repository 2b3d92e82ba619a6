"""Replies that the bot has still to deliver."""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct, field

from ops.errors import StoreError


class Attachment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of a message, to be downloaded.

    Attributes:
        file_id: Telegram's id of the file.
        name: File name given by the sender; untrusted.
        caption: Text that becomes the file's note.
        size_bytes: Size according to Telegram; None if unknown.
    """

    file_id: str
    name: str
    caption: str = ""
    size_bytes: int | None = None


class PendingReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reply to one update, stored as JSON until it has been delivered.

    A reply is shown by editing messages whose ids are stored here. An edit can be repeated, so no text
    appears twice, whatever is killed at whatever time.

    Attributes:
        update_id: The update.
        chat_id: Chat of the reply.
        thread_id: Topic of the reply; None outside topics.
        reply_to: Id of the message that it answers.
        job_id: Id of the job whose outcome is the reply.
        text: The reply, if it is not the outcome of a job.
        attachment: File to download; the reply reports the result.
        file_job_id: Id of the job of the attachment.
        query_id: Id of a button press, which is answered with ``text``.
        spooled: Whether the job went to the spool.
        message_ids: Ids of the bot's messages that show the reply, in order.
        done: Whether it has been delivered; stored only while the store is unavailable.
        at_s: When the update was handled, in seconds since 1970.
    """

    update_id: int
    chat_id: int
    thread_id: int | None = None
    reply_to: int | None = None
    job_id: str = ""
    text: str = ""
    attachment: Attachment | None = None
    file_job_id: str = ""
    query_id: str = ""
    spooled: bool = False
    message_ids: tuple[int, ...] = ()
    done: bool = False
    at_s: float = field(default_factory=time.time)

    def encode(self) -> bytes:
        """Return the reply as JSON."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(PendingReply)


def decode_reply(data: bytes) -> PendingReply:
    """Return the reply that ``encode`` has encoded.

    Raises:
        StoreError: ``data`` is not a reply.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"A pending reply is not valid: {error}.", remedy="Delete it.") from error
