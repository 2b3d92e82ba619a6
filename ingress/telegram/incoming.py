"""Read the messages that the bot receives: who sent them and where, the question in them, the attachment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ingress.telegram.commands import Sender
from ingress.telegram.pending_reply import Attachment
from ops.store.resp import well_formed

if TYPE_CHECKING:
    from telegram import Message, Update

_CAPTION_MAX = 1024
#: Characters of a quoted text that become part of the question.
_QUOTE_MAX_CHARS = 4000


class Incoming(NamedTuple):
    """A message of a chat.

    Attributes:
        message: The message.
        edited: Whether it was changed after it had been sent.
    """

    message: Message
    edited: bool

    @property
    def date_ms(self) -> int:
        """When it was sent, or else edited, in milliseconds since 1970."""
        date = self.message.date if self.message.edit_date is None else self.message.edit_date
        return round(date.timestamp() * 1000)


def incoming(update: Update) -> Incoming | None:
    """Return the message of an update: sent or edited, in a chat or a channel; None for any other update."""
    for message in (update.message, update.channel_post):
        if message is not None:
            return Incoming(message, edited=False)
    for message in (update.edited_message, update.edited_channel_post):
        if message is not None:
            return Incoming(message, edited=True)
    return None


def sender_of(message: Message) -> Sender:
    """Return who sent a message; the chat itself for a post in a channel."""
    return Sender(message.chat.id, message.chat.id if message.from_user is None else message.from_user.id)


def thread_of(message: Message) -> int | None:
    """Return the topic of a message; None outside topics (a thread of replies is none)."""
    return message.message_thread_id if message.is_topic_message else None


def session_of(message: Message) -> str:
    """Return the session of a message: one for each chat, and for each topic of a chat."""
    thread_id = thread_of(message)
    return f"tg_{message.chat.id}" if thread_id is None else f"tg_{message.chat.id}_{thread_id}"


def text_of(message: Message) -> str:
    """Return the text of a message, or the caption of what it shows."""
    return well_formed(message.text or message.caption or "").strip()


def question_of(message: Message) -> str:
    """Return the question in a message: its text, after the text that it quotes or answers."""
    quoted = quoted_text(message)
    if not quoted:
        return text_of(message)
    lines = "\n".join(f"> {line}" for line in quoted.splitlines())
    return f"{lines}\n\n{text_of(message)}"


def quoted_text(message: Message) -> str:
    """Return the text that a message quotes, or of the message that it answers; at most 4000 characters."""
    if message.quote is not None:
        text = message.quote.text
    elif message.reply_to_message is not None:
        text = message.reply_to_message.text or message.reply_to_message.caption or ""
    else:
        text = ""
    plain = well_formed(text).strip()
    return plain if len(plain) <= _QUOTE_MAX_CHARS else f"{plain[:_QUOTE_MAX_CHARS]} …"


def attachment_of(message: Message, update_id: int) -> Attachment | None:
    """Return the file of a message, or None; of a photo the largest size.

    Args:
        message: The message.
        update_id: Its update, which names files that have no name.
    """
    caption = well_formed(message.caption or "")[:_CAPTION_MAX]
    if message.photo:
        largest = max(message.photo, key=lambda size: size.width * size.height)
        return Attachment(
            file_id=largest.file_id,
            name=f"photo-{update_id}.jpg",
            caption=caption,
            size_bytes=largest.file_size,
        )
    for item in (message.document, message.audio, message.video):
        if item is not None:
            return Attachment(
                file_id=item.file_id,
                name=well_formed(item.file_name or ""),
                caption=caption,
                size_bytes=item.file_size,
            )
    for recording, name in (
        (message.voice, f"voice-{update_id}.ogg"),
        (message.video_note, f"video-note-{update_id}.mp4"),
    ):
        if recording is not None:
            return Attachment(
                file_id=recording.file_id, name=name, caption=caption, size_bytes=recording.file_size
            )
    return None
