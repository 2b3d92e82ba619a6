"""What the bot owes a chat: a reply, kept until it has been given."""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct, field

from ops.errors import StoreError


class Attachment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that came with a message and is still to be fetched.

    Attributes:
        file_id: Telegram's name for it.
        name: As the sender calls it; not to be trusted.
        caption: Goes with it as a note.
        size_bytes: As Telegram says; None if it does not.
    """

    file_id: str
    name: str
    caption: str = ""
    size_bytes: int | None = None


class Owed(Struct, kw_only=True, omit_defaults=True):
    """A reply that is owed to one update.

    A reply is given by editing messages whose ids are known, and an edit may be repeated: so a text is never
    shown twice, whatever is killed when.

    Attributes:
        update_id: Which update.
        chat_id: Where the reply goes.
        reply_to: Message that it answers.
        job_id: The reply is the outcome of this job.
        text: The reply, if no job makes it.
        attachment: The file to be fetched; the reply says what became of it.
        query_id: The button press to be answered with ``text``.
        spooled: The job went to the spool.
        message_ids: Our messages that show the reply, in order.
        done: It has been given; kept only while the store cannot be told.
        at_s: When the update was taken, seconds since 1970.
    """

    update_id: int
    chat_id: int
    reply_to: int | None = None
    job_id: str = ""
    text: str = ""
    attachment: Attachment | None = None
    query_id: str = ""
    spooled: bool = False
    message_ids: list[int] = field(default_factory=list)
    done: bool = False
    at_s: float = field(default_factory=time.time)

    def encode(self) -> bytes:
        """Give it as JSON."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Owed)


def decode_owed(data: bytes) -> Owed:
    """Read what ``encode`` wrote.

    Raises:
        StoreError: It is something else.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"an owed reply cannot be read: {error}.", remedy="Delete it.") from error
