"""Handle updates: submit a job, accept an attachment, run a command, approve or deny a job.

An update may be handled again after a crash: the id of a job is derived from its update, a file is only
recorded for download, and commands read or repeat the same action.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

from ingress.core import control
from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge
from ingress.core.spooled_jobs import SPOOLED
from ingress.telegram.client import UNREADABLE
from ingress.telegram.commands import COMMANDS, HELP, STORELESS_COMMANDS, Sender
from ingress.telegram.pending_reply import Attachment, PendingReply
from middleware.job.ids import ALPHABET, new_job_id
from middleware.job.schema import Job, make_job
from ops.errors import BridgeError, StoreUnreachable, UsageProblem
from ops.logs import get_logger
from ops.settings.load import Settings
from ops.store.resp import well_formed

if TYPE_CHECKING:
    from telegram import CallbackQuery, Message, Update

SOURCE = "telegram"
APPROVE, DENY = "approve", "deny"
#: Interval of log lines about the same chat that is not allowed.
_NOT_ALLOWED_LOG_S = 3600.0
_NOT_ALLOWED_MAX = 1000
_CAPTION_MAX = 1024
#: Telegram's limit for the notification after a button press.
_NOTIFICATION_MAX = 200
_STORE_UNAVAILABLE = "The store is unavailable. Try again in a moment."

log = get_logger(__name__)


class BotIdentity(NamedTuple):
    """Identity of the bot.

    Attributes:
        bot_id: Its id, the first part of the token.
        username: Its user name, without the @.
    """

    bot_id: str
    username: str


def bot_id_of(token: str) -> str:
    """Return the bot's id, the first part of its token; for another form of token, a hash of it."""
    number = token.partition(":")[0]
    return number if number.isdigit() else hashlib.sha256(token.encode()).hexdigest()[:12]


def job_id_for(bot_id: str, update_id: int, date_ms: int) -> str:
    """Return the job id of an update: always the same, and sortable by the time of the message.

    Args:
        bot_id: The bot's id.
        update_id: The update.
        date_ms: When the message was sent, in milliseconds since 1970.
    """
    digest = hashlib.sha256(f"tg:{bot_id}:{update_id}".encode()).digest()
    return new_job_id(date_ms)[:10] + "".join(ALPHABET[byte & 31] for byte in digest[:10])


class UpdateHandler:
    """Handles updates, one at a time.

    Args:
        bridge: For everything except job submission.
        acceptance: Accepts jobs, and knows whether the store is available.
        settings: Allowed chats and admins.
        bot: The bot.
    """

    def __init__(self, bridge: Bridge, acceptance: Acceptance, settings: Settings, bot: BotIdentity) -> None:
        self._bridge = bridge
        self._acceptance = acceptance
        self._allowed = frozenset(settings.telegram_allow)
        self._admins = frozenset(settings.telegram_admins)
        self._bot = bot
        self._not_allowed_logged_s: dict[int, float] = {}

    def handle(self, update: Update) -> PendingReply | None:
        """Do what an update asks for.

        Returns:
            The reply to deliver; None if there is none.
        """
        if UNREADABLE in update.api_kwargs:
            log.warning(
                "telegram.set_aside", update_id=update.update_id, reason=str(update.api_kwargs[UNREADABLE])
            )
            return None
        if update.callback_query is not None:
            return self._handle_press(update.update_id, update.callback_query)
        if update.message is None:
            return None
        return self._handle_message(update.update_id, update.message)

    def quarantine(self, update: Update, reason: str) -> PendingReply | None:
        """Skip an update that cannot be handled.

        Returns:
            A reply that says so; None for a chat that is not allowed.
        """
        log.error("telegram.set_aside", update_id=update.update_id, reason=reason)
        message = update.message
        if message is None or message.chat.id not in self._allowed:
            return None
        return _text_reply(
            update.update_id, message, "This message could not be processed and was skipped; see 3ox.log."
        )

    def _handle_message(self, update_id: int, message: Message) -> PendingReply | None:
        if message.chat.id not in self._allowed:
            self._log_not_allowed(message.chat.id, update_id)
            return None
        attachment = _attachment(message, update_id)
        if attachment is not None:
            return PendingReply(
                update_id=update_id,
                chat_id=message.chat.id,
                reply_to=message.message_id,
                attachment=attachment,
            )
        text = well_formed(message.text or "").strip()
        return self._handle_text(update_id, message, text) if text else _unsupported(update_id, message)

    def _handle_text(self, update_id: int, message: Message, text: str) -> PendingReply | None:
        try:
            if text.startswith("/"):
                return self._handle_command(update_id, message, text)
            return self._submit(update_id, message, self._question(update_id, message, text))
        except StoreUnreachable:
            return _text_reply(update_id, message, _STORE_UNAVAILABLE)
        except BridgeError as error:
            return _text_reply(update_id, message, str(error))

    def _handle_command(self, update_id: int, message: Message, text: str) -> PendingReply | None:
        head, _, words = text[1:].partition(" ")
        if "\n" in head:
            head, _, rest = head.partition("\n")
            words = f"{rest} {words}"
        name, _, addressee = head.partition("@")
        if addressee and addressee.lower() != self._bot.username.lower():
            return None
        name, words = name.lower(), words.strip()
        if name == "run":
            return self._submit(update_id, message, self._task(update_id, message, words))
        if name not in COMMANDS:
            return _text_reply(update_id, message, f"Unknown command /{name[:40]}.\n\n{HELP}")
        commands = STORELESS_COMMANDS if self._acceptance.store_unavailable.is_set() else COMMANDS
        if name not in commands:
            raise StoreUnreachable
        return _text_reply(update_id, message, commands[name](self._bridge, words, _sender(message)))

    def _submit(self, update_id: int, message: Message, job: Job) -> PendingReply:
        receipt = self._acceptance.accept(job)
        return PendingReply(
            update_id=update_id,
            chat_id=message.chat.id,
            reply_to=message.message_id,
            job_id=receipt.job_id,
            spooled=receipt.status == SPOOLED,
        )

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
            raise UsageProblem("/run needs a project and a task.", remedy="Write /run PROJECT TASK.")
        # Before the schema is checked, whose error for an invalid name would quote a regular expression.
        self._bridge.admission.project(project)
        return make_job("task.custom", {"task": task}, project=project, **self._origin(update_id, message))

    def _origin(self, update_id: int, message: Message) -> dict[str, object]:
        sender = _sender(message)
        return {
            "job_id": job_id_for(self._bot.bot_id, update_id, round(message.date.timestamp() * 1000)),
            "idempotency_key": f"tg:{self._bot.bot_id}:{update_id}",
            "source": SOURCE,
            "actor": str(sender.chat_id),
            "trust": "member",
            "metadata": {
                "telegram_message": str(message.message_id),
                "telegram_user": str(sender.user_id),
            },
        }

    def _handle_press(self, update_id: int, query: CallbackQuery) -> PendingReply:
        chat_id = 0 if query.message is None else query.message.chat.id
        text = self._decide(query, chat_id)
        return PendingReply(update_id=update_id, chat_id=chat_id, query_id=query.id, text=text)

    def _decide(self, query: CallbackQuery, chat_id: int) -> str:
        """Check a button press and do what it says; return the text of the notification."""
        user_id = query.from_user.id
        action, _, job_id = (query.data or "").partition(":")
        if user_id not in self._admins and chat_id not in self._admins:
            log.warning("telegram.press_refused", user_id=user_id, chat_id=chat_id, job_id=job_id[:40])
            return "You are not allowed to approve or deny this job."
        if action not in {APPROVE, DENY}:
            return "This button has expired."
        return self._approve_or_deny(action, job_id, f"telegram:{user_id}")

    def _approve_or_deny(self, action: str, job_id: str, actor: str) -> str:
        if self._acceptance.store_unavailable.is_set():
            return _STORE_UNAVAILABLE
        try:
            if action == APPROVE:
                control.approve(self._bridge, job_id, actor)
            else:
                control.deny(self._bridge, job_id, actor)
        except StoreUnreachable:
            return _STORE_UNAVAILABLE
        except BridgeError as error:
            return str(error)[:_NOTIFICATION_MAX]
        return "Approved." if action == APPROVE else "Denied."

    def _log_not_allowed(self, chat_id: int, update_id: int) -> None:
        now_s = time.monotonic()
        if now_s - self._not_allowed_logged_s.get(chat_id, -_NOT_ALLOWED_LOG_S) < _NOT_ALLOWED_LOG_S:
            return
        if len(self._not_allowed_logged_s) >= _NOT_ALLOWED_MAX:
            self._not_allowed_logged_s.clear()
        self._not_allowed_logged_s[chat_id] = now_s
        log.warning(
            "telegram.not_allowed",
            chat_id=chat_id,
            update_id=update_id,
            remedy="To allow this chat, add its id to telegram_allow.",
        )


def _text_reply(update_id: int, message: Message, text: str) -> PendingReply:
    return PendingReply(update_id=update_id, chat_id=message.chat.id, reply_to=message.message_id, text=text)


def _unsupported(update_id: int, message: Message) -> PendingReply | None:
    """Return the reply to a message without text or file; None for service messages, such as a new member."""
    if message.effective_attachment is None:
        return None
    return _text_reply(
        update_id, message, "Only text, documents, photos, audio and video are supported. See /help."
    )


def _sender(message: Message) -> Sender:
    return Sender(message.chat.id, message.chat.id if message.from_user is None else message.from_user.id)


def _attachment(message: Message, update_id: int) -> Attachment | None:
    """Return the file of a message, or None; of a photo the largest size."""
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
