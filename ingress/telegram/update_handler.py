"""Decides what an update means, and does it: a job, a file to be fetched, a command, an approval.

What is done here may be done again after a crash without harm: a job has an id that follows from its update,
a file is only noted down, commands read or say the same once more.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

from ingress.core import control
from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge
from ingress.core.spooled_jobs import SPOOLED
from ingress.telegram.api import UNREADABLE
from ingress.telegram.commands import AT_ONCE, HELP, STORELESS, Asker
from ingress.telegram.pending_reply import Attachment, Owed
from middleware.job.ids import ALPHABET, new_job_id
from middleware.job.schema import Job, make_job
from ops.errors import BridgeError, StoreUnreachable, UsageProblem
from ops.logs import get_logger
from ops.store.resp import well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

    from telegram import CallbackQuery, Message, Update

    from ops.settings.load import Settings

SOURCE = "telegram"
APPROVE, DENY = "approve", "deny"
#: A chat that is not allowed is logged so often.
_STRANGER_S = 3600.0
_STRANGERS_MAX = 1000
_CAPTION_MAX = 1024

log = get_logger(__name__)


class Bot(NamedTuple):
    """The bot: its number, and its name without the @."""

    number: str
    username: str


def bot_number(token: str) -> str:
    """Give the bot's number, with which its token begins."""
    number = token.partition(":")[0]
    return number if number.isdigit() else hashlib.sha256(token.encode()).hexdigest()[:12]


def job_id_for(bot: str, update_id: int, date_ms: int) -> str:
    """Give the id of the job that an update becomes: always the same one, sortable by the message's time.

    Args:
        bot: The bot's number.
        update_id: Which update.
        date_ms: When the message was sent, milliseconds since 1970.
    """
    digest = hashlib.sha256(f"tg:{bot}:{update_id}".encode()).digest()
    return new_job_id(date_ms)[:10] + "".join(ALPHABET[byte & 31] for byte in digest[:10])


class Desk:
    """Handles updates; from one thread at a time.

    Args:
        bridge: For everything but taking jobs in.
        acceptance: Takes jobs in.
        settings: Who is heard, who approves.
        bot: The bot.
        is_away: Tells whether the store is away.
    """

    def __init__(
        self,
        bridge: Bridge,
        acceptance: Acceptance,
        settings: Settings,
        bot: Bot,
        is_away: Callable[[], bool],
    ) -> None:
        self._bridge = bridge
        self._acceptance = acceptance
        self._allowed = frozenset(settings.telegram_allow)
        self._admins = frozenset(settings.telegram_admins)
        self._bot = bot
        self._is_away = is_away
        self._strangers: dict[int, float] = {}

    def handle(self, update: Update) -> Owed | None:
        """Do what an update asks for.

        Returns:
            The reply that is owed now; None if there is none.
        """
        if UNREADABLE in update.api_kwargs:
            log.warning(
                "telegram.set_aside", update_id=update.update_id, reason=str(update.api_kwargs[UNREADABLE])
            )
            return None
        if update.callback_query is not None:
            return self._pressed(update.update_id, update.callback_query)
        if update.message is None:
            return None
        return self._message(update.update_id, update.message)

    def set_aside(self, update: Update, reason: str) -> Owed | None:
        """Give up on an update that could not be handled, and say so in its chat."""
        log.error("telegram.set_aside", update_id=update.update_id, reason=reason)
        message = update.message
        if message is None or message.chat.id not in self._allowed:
            return None
        return Owed(
            update_id=update.update_id,
            chat_id=message.chat.id,
            reply_to=message.message_id,
            text="This message could not be handled and was set aside; 3ox.log says why.",
        )

    def _message(self, update_id: int, message: Message) -> Owed | None:
        chat_id = message.chat.id
        if chat_id not in self._allowed:
            self._stranger(chat_id, update_id)
            return None
        owed = Owed(update_id=update_id, chat_id=chat_id, reply_to=message.message_id)
        owed.attachment = _attachment(message, update_id)
        if owed.attachment is not None:
            return owed
        text = well_formed(message.text or "").strip()
        if text == "":
            return self._wordless(message, owed)
        try:
            if not text.startswith("/"):
                return self._dispatch(owed, self._question(update_id, message, text))
            return self._command(owed, message, text)
        except StoreUnreachable:
            owed.text = "The store is away, so this cannot be answered now. Try again in a moment."
        except BridgeError as error:
            owed.text = str(error)
        return owed

    def _wordless(self, message: Message, owed: Owed) -> Owed | None:
        if message.effective_attachment is None:
            # Somebody joined, a message was pinned: nobody asked for anything.
            return None
        owed.text = "Only text, documents and photos are understood. /help says more."
        return owed

    def _command(self, owed: Owed, message: Message, text: str) -> Owed | None:
        head, _, words = text[1:].partition(" ")
        if "\n" in head:
            head, _, rest = head.partition("\n")
            words = f"{rest} {words}"
        name, _, addressee = head.partition("@")
        if addressee and addressee.lower() != self._bot.username.lower():
            return None
        name, words = name.lower(), words.strip()
        if name == "run":
            return self._dispatch(owed, self._task(owed.update_id, message, words))
        if name not in AT_ONCE:
            owed.text = f"There is no command /{name[:40]}.\n\n{HELP}"
            return owed
        commands = STORELESS if self._is_away() else AT_ONCE
        if name not in commands:
            raise StoreUnreachable
        owed.text = commands[name](self._bridge, words, _asker(message))
        return owed

    def _dispatch(self, owed: Owed, job: Job) -> Owed:
        if self._is_away():
            # A single job's key is looked up in the store, which costs a paused store's time-out for each.
            (receipt,) = self._acceptance.accept_many([job])
        else:
            receipt = self._acceptance.accept(job)
        owed.job_id = receipt.job_id
        owed.spooled = receipt.status == SPOOLED
        return owed

    def _question(self, update_id: int, message: Message, text: str) -> Job:
        chat_id = message.chat.id
        return make_job(
            "telegram",
            {"chat_id": chat_id, "text": text, "message_id": message.message_id, "update_id": update_id},
            session_id=f"tg_{chat_id}",
            **self._origin(update_id, message),
        )

    def _task(self, update_id: int, message: Message, words: str) -> Job:
        project, _, task = words.partition(" ")
        task = task.strip()
        if not project or not task:
            raise UsageProblem("/run wants a project and a task.", remedy="Write /run PROJECT TASK.")
        return make_job("task.custom", {"task": task}, project=project, **self._origin(update_id, message))

    def _origin(self, update_id: int, message: Message) -> dict[str, object]:
        asker = _asker(message)
        return {
            "job_id": job_id_for(self._bot.number, update_id, round(message.date.timestamp() * 1000)),
            "idempotency_key": f"tg:{self._bot.number}:{update_id}",
            "source": SOURCE,
            "actor": str(asker.chat_id),
            "trust": "member",
            "metadata": {
                "telegram_message": str(message.message_id),
                "telegram_user": str(asker.user_id),
            },
        }

    def _pressed(self, update_id: int, query: CallbackQuery) -> Owed:
        chat_id = 0 if query.message is None else query.message.chat.id
        owed = Owed(update_id=update_id, chat_id=chat_id, query_id=query.id)
        user_id = query.from_user.id
        verb, _, job_id = (query.data or "").partition(":")
        if user_id not in self._admins and chat_id not in self._admins:
            log.warning("telegram.press_refused", user_id=user_id, chat_id=chat_id, job_id=job_id[:40])
            owed.text = "You are not among those who may decide this."
        elif verb not in {APPROVE, DENY}:
            owed.text = "This button has no meaning any more."
        else:
            owed.text = self._decide(verb, job_id, f"telegram:{user_id}")
        return owed

    def _decide(self, verb: str, job_id: str, actor: str) -> str:
        if self._is_away():
            return "The store is away. Press again in a moment."
        try:
            if verb == APPROVE:
                control.approve(self._bridge, job_id, actor)
                return "Approved."
            control.deny(self._bridge, job_id, actor)
        except StoreUnreachable:
            return "The store is away. Press again in a moment."
        except BridgeError as error:
            # Telegram shows at most 200 characters.
            return str(error)[:200]
        return "Denied."

    def _stranger(self, chat_id: int, update_id: int) -> None:
        now_s = time.monotonic()
        if now_s - self._strangers.get(chat_id, -_STRANGER_S) < _STRANGER_S:
            return
        if len(self._strangers) >= _STRANGERS_MAX:
            self._strangers.clear()
        self._strangers[chat_id] = now_s
        log.warning(
            "telegram.not_allowed",
            chat_id=chat_id,
            update_id=update_id,
            remedy="To be heard, its id has to stand in telegram_allow.",
        )


def _asker(message: Message) -> Asker:
    return Asker(message.chat.id, message.chat.id if message.from_user is None else message.from_user.id)


def _attachment(message: Message, update_id: int) -> Attachment | None:
    """Find the file in a message; of a photo the largest size."""
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
    if message.voice is not None:
        return Attachment(
            file_id=message.voice.file_id,
            name=f"voice-{update_id}.ogg",
            caption=caption,
            size_bytes=message.voice.file_size,
        )
    return None
