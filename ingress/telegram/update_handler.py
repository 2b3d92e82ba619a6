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
from ingress.telegram.chats import Chats
from ingress.telegram.client import UNREADABLE
from ingress.telegram.commands import COMMANDS, HELP, STORELESS_COMMANDS
from ingress.telegram.incoming import (
    Incoming,
    attachment_of,
    incoming,
    question_of,
    sender_of,
    session_of,
    text_of,
    thread_of,
)
from ingress.telegram.pending_reply import PendingReply
from middleware.job.ids import ALPHABET, new_job_id
from middleware.job.schema import Job, make_job
from ops.errors import BridgeError, StoreUnreachable, UsageProblem
from ops.logs import get_logger

if TYPE_CHECKING:
    from telegram import CallbackQuery, Message, Update

SOURCE = "telegram"
APPROVE, DENY = "approve", "deny"
#: Interval of log lines about the same chat that is not allowed.
_NOT_ALLOWED_LOG_S = 3600.0
_NOT_ALLOWED_MAX = 1000
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
        chats: Allowed chats and admins.
        bot: The bot.
    """

    def __init__(self, bridge: Bridge, acceptance: Acceptance, chats: Chats, bot: BotIdentity) -> None:
        self._bridge = bridge
        self._acceptance = acceptance
        self._chats = chats
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
        received = incoming(update)
        return None if received is None else self._handle_message(update.update_id, received)

    def quarantine(self, update: Update, reason: str) -> PendingReply | None:
        """Skip an update that cannot be handled.

        Returns:
            A reply that says so; None for a chat that is not allowed.
        """
        log.error("telegram.set_aside", update_id=update.update_id, reason=reason)
        received = incoming(update)
        if received is None or not self._chats.is_allowed(received.message.chat.id):
            return None
        return _text_reply(
            update.update_id,
            received.message,
            "This message could not be processed and was skipped; see 3ox.log.",
        )

    def _handle_message(self, update_id: int, received: Incoming) -> PendingReply | None:
        message = received.message
        chat_id = message.chat.id
        # Telegram sends one of these in each of the two chats.
        if message.migrate_to_chat_id is not None:
            self._chats.move(chat_id, message.migrate_to_chat_id)
        if message.migrate_from_chat_id is not None:
            self._chats.move(message.migrate_from_chat_id, chat_id)
        if not self._chats.is_allowed(chat_id):
            self._log_not_allowed(chat_id, update_id)
            return None
        origin = message.sender_chat
        if message.is_automatic_forward and origin is not None and self._chats.is_allowed(origin.id):
            return None  # a copy of a post in an allowed channel, which is answered there
        attachment = attachment_of(message, update_id)
        if attachment is not None and received.edited:
            again = "The file was taken when it was sent. Send a changed file or note as a new message."
            return _text_reply(update_id, message, again)
        if attachment is not None:
            return PendingReply(
                update_id=update_id,
                chat_id=chat_id,
                thread_id=thread_of(message),
                reply_to=message.message_id,
                attachment=attachment,
            )
        if not text_of(message):
            # A shared position, for instance, is edited again and again.
            return None if received.edited else _unsupported(update_id, message)
        return self._handle_text(update_id, received, text_of(message))

    def _handle_text(self, update_id: int, received: Incoming, text: str) -> PendingReply | None:
        message = received.message
        try:
            if text.startswith("/"):
                return self._handle_command(update_id, received, text)
            return self._submit(update_id, message, self._question(update_id, received))
        except StoreUnreachable:
            return _text_reply(update_id, message, _STORE_UNAVAILABLE)
        except BridgeError as error:
            return _text_reply(update_id, message, str(error))

    def _handle_command(self, update_id: int, received: Incoming, text: str) -> PendingReply | None:
        message = received.message
        head, _, words = text[1:].partition(" ")
        if "\n" in head:
            head, _, rest = head.partition("\n")
            words = f"{rest} {words}"
        name, _, addressee = head.partition("@")
        if addressee and addressee.lower() != self._bot.username.lower():
            return None
        name, words = name.lower(), words.strip()
        if name == "run":
            return self._submit(update_id, message, self._task(update_id, received, words))
        if name not in COMMANDS:
            return _text_reply(update_id, message, f"Unknown command /{name[:40]}.\n\n{HELP}")
        commands = STORELESS_COMMANDS if self._acceptance.store_unavailable.is_set() else COMMANDS
        if name not in commands:
            raise StoreUnreachable
        return _text_reply(update_id, message, commands[name](self._bridge, words, sender_of(message)))

    def _submit(self, update_id: int, message: Message, job: Job) -> PendingReply:
        receipt = self._acceptance.accept(job)
        return PendingReply(
            update_id=update_id,
            chat_id=message.chat.id,
            thread_id=thread_of(message),
            reply_to=message.message_id,
            job_id=receipt.job_id,
            spooled=receipt.status == SPOOLED,
        )

    def _question(self, update_id: int, received: Incoming) -> Job:
        message = received.message
        payload = {
            "chat_id": message.chat.id,
            "text": question_of(message),
            "message_id": message.message_id,
            "update_id": update_id,
        }
        return make_job(
            "telegram", payload, session_id=session_of(message), **self._origin(update_id, received)
        )

    def _task(self, update_id: int, received: Incoming, words: str) -> Job:
        project, _, task = words.partition(" ")
        task = task.strip()
        if not project or not task:
            raise UsageProblem("/run needs a project and a task.", remedy="Write /run PROJECT TASK.")
        # Before the schema is checked, whose error for an invalid name would quote a regular expression.
        self._bridge.admission.project(project)
        return make_job("task.custom", {"task": task}, project=project, **self._origin(update_id, received))

    def _origin(self, update_id: int, received: Incoming) -> dict[str, object]:
        message = received.message
        sender, thread_id = sender_of(message), thread_of(message)
        metadata = {"telegram_message": str(message.message_id), "telegram_user": str(sender.user_id)}
        if thread_id is not None:
            metadata["telegram_thread"] = str(thread_id)
        return {
            "job_id": job_id_for(self._bot.bot_id, update_id, received.date_ms),
            "idempotency_key": f"tg:{self._bot.bot_id}:{update_id}",
            "source": SOURCE,
            "actor": str(sender.chat_id),
            "trust": "member",
            "metadata": metadata,
        }

    def _handle_press(self, update_id: int, query: CallbackQuery) -> PendingReply:
        chat_id = 0 if query.message is None else query.message.chat.id
        text = self._decide(query, chat_id)
        return PendingReply(update_id=update_id, chat_id=chat_id, query_id=query.id, text=text)

    def _decide(self, query: CallbackQuery, chat_id: int) -> str:
        """Check a button press and do what it says; return the text of the notification."""
        user_id = query.from_user.id
        action, _, job_id = (query.data or "").partition(":")
        if not self._chats.is_admin(user_id, chat_id):
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
    return PendingReply(
        update_id=update_id,
        chat_id=message.chat.id,
        thread_id=thread_of(message),
        reply_to=message.message_id,
        text=text,
    )


def _unsupported(update_id: int, message: Message) -> PendingReply | None:
    """Return the reply to a message without text or file; None for service messages, such as a new member."""
    if message.effective_attachment is None:
        return None
    return _text_reply(
        update_id, message, "Only text, documents, photos, audio and video are supported. See /help."
    )
