"""Calls of the Bot API through python-telegram-bot, retried until Telegram accepts or refuses them.

A call ends with its result, or with ``CallRefused`` if repeating it is useless. Outages, server errors and
429 are retried without limit. Every URL contains the token, which must not appear in logs and messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

# Only ``3ox telegram`` imports this module, after it has checked that the library is installed.
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    ReplyParameters,
    Update,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.ext import AIORateLimiter, ExtBot
from telegram.request import HTTPXRequest

from ingress.telegram.pauses import ChatPauses, telegram_backoff
from middleware.telegram_chats import TOPIC_GONE
from ops.environment import export
from ops.errors import BridgeError
from ops.http.client import EnvironmentTransport
from ops.logs import get_logger
from ops.settings.load import Settings

#: How long Telegram holds a poll without updates.
POLL_S = 25
#: Updates per answer; also Telegram's limit.
POLL_LIMIT = 100
#: Telegram's limit for files that bots download: https://core.telegram.org/bots/api#getfile
FILE_MAX_BYTES = 20_000_000
_TIMEOUT_S = 10.0
_DOWNLOAD_TIMEOUT_S = 120.0
_CONNECTIONS = 8
#: Interval of attempts with a token that Telegram refuses; it may be restored.
REFUSED_TOKEN_S = 60.0
#: Key that marks an update which the library cannot parse; its value is the reason.
UNREADABLE = "unreadable"

#: Kinds of updates that the bot receives.
_UPDATES = ["message", "edited_message", "channel_post", "edited_channel_post", "callback_query"]

T = TypeVar("T")
log = get_logger(__name__)


class CallRefused(BridgeError):
    """Telegram refuses this call; repeating it is useless."""


class MessageGone(CallRefused):
    """The message to edit does not exist any more."""


class ChatMoved(CallRefused):
    """The chat has another id now, since its group has become a supergroup.

    Parameters:
        chat_id: Its new id.
    """

    def __init__(self, message: str, *, chat_id: int) -> None:
        super().__init__(message)
        self.chat_id = chat_id


class TopicGone(CallRefused):
    """The topic has been deleted or closed."""


class TokenRefused(BridgeError):
    """Telegram does not know the bot's token."""


class _CallRequest(HTTPXRequest):
    """Sends a limited number of calls at a time; those that wait for the rate limiter do not count."""

    def __init__(self, **options: Any) -> None:
        super().__init__(connection_pool_size=_CONNECTIONS, httpx_kwargs=_through_environment(), **options)
        self._slots = asyncio.Semaphore(_CONNECTIONS)

    async def do_request(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        """Send a call when there is a free connection."""
        async with self._slots:
            return await super().do_request(*args, **options)


class _PollRequest(HTTPXRequest):
    """Marks updates that the library cannot parse, so that they do not block the others."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        document: dict[str, Any] = HTTPXRequest.parse_json_payload(payload)
        result = document.get("result")
        if isinstance(result, list):
            document["result"] = [_readable(item) for item in result if _has_id(item)]
        return document


def _has_id(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("update_id"), int)


def _readable(item: dict[str, Any]) -> dict[str, Any]:
    try:
        Update.de_json(dict(item))
    except Exception as error:  # noqa: BLE001 (whatever the library raises for a malformed update)
        return {"update_id": item["update_id"], UNREADABLE: f"{type(error).__name__}: {error}"[:200]}
    return item


def retry_after_s(error: RetryAfter) -> float:
    """Return the wait that Telegram demands, in seconds."""
    wait = error.retry_after
    return max(0.1, wait.total_seconds() if isinstance(wait, timedelta) else float(wait))


class TelegramClient:
    """Client of the Bot API.

    Args:
        settings: Token, address and rate limits.

    Attributes:
        rate: Pauses that Telegram demands, and the intervals between edits.

    Raises:
        SettingsError: A proxy or certificate variable of the environment is not valid.
    """

    def __init__(self, settings: Settings) -> None:
        # Without it the library logs a warning for every 429.
        export({"PTB_TIMEDELTA": "true"})
        # At level INFO it logs every URL, token included; ops.http does the same for httpx. The rate limiter
        # logs each 429 as an error, which is handled here.
        logging.getLogger("telegram").setLevel(logging.WARNING)
        logging.getLogger("telegram.ext.AIORateLimiter").setLevel(logging.CRITICAL)
        self._token = settings.telegram_token
        self.rate = ChatPauses(edit_interval_s=settings.telegram_edit_interval_s)
        timeouts: dict[str, Any] = {
            "read_timeout": _TIMEOUT_S,
            "write_timeout": _TIMEOUT_S,
            "connect_timeout": _TIMEOUT_S,
            "pool_timeout": _TIMEOUT_S,
        }
        self._requests = (
            _PollRequest(connection_pool_size=2, httpx_kwargs=_through_environment(), **timeouts),
            _CallRequest(**timeouts),
        )
        root = settings.telegram_api.rstrip("/")
        self._bot = ExtBot(
            self._token,
            base_url=f"{root}/bot",
            base_file_url=f"{root}/file/bot",
            get_updates_request=self._requests[0],
            request=self._requests[1],
            rate_limiter=AIORateLimiter(
                overall_max_rate=settings.telegram_messages_per_s,
                overall_time_period=1,
                group_max_rate=settings.telegram_group_messages_per_min,
                group_time_period=60,
            ),
        )
        self._send_locks: dict[int, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close all connections."""
        for request in self._requests:
            await request.shutdown()

    async def username(self) -> str:
        """Return the bot's user name, without the @.

        Raises:
            TokenRefused: Telegram does not know the token.
            TelegramError: The call failed otherwise.
        """
        try:
            me = await self._bot.get_me()
        except InvalidToken as error:
            raise self._token_refused() from error
        return me.username or ""

    async def updates(self, offset: int | None) -> Sequence[Update]:
        """Poll once: confirm all updates before ``offset`` and return the newer ones.

        Raises:
            TokenRefused: Telegram does not know the token.
            TelegramError: The call failed otherwise.
        """
        try:
            return await self._bot.get_updates(
                offset=offset,
                limit=POLL_LIMIT,
                timeout=POLL_S,
                allowed_updates=_UPDATES,
            )
        except InvalidToken as error:
            raise self._token_refused() from error

    async def send(
        self,
        chat_id: int,
        text: str,
        *,
        reply_to: int | None = None,
        thread_id: int | None = None,
        buttons: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Send a message; messages of one chat are sent in the order of the calls.

        Args:
            chat_id: The chat.
            text: At most 4096 units.
            reply_to: Id of the message that it answers; ignored if that has been deleted.
            thread_id: Topic; None outside topics.
            buttons: Label and data of the buttons in the row below it.

        Returns:
            The message's id.

        Raises:
            ChatMoved: The chat has another id now.
            TopicGone: The topic has been deleted or closed.
            CallRefused: Telegram refuses it, for instance because the bot has been blocked.
        """
        reply = None
        if reply_to is not None:
            reply = ReplyParameters(reply_to, allow_sending_without_reply=True)
        async with self._send_locks.setdefault(chat_id, asyncio.Lock()):
            message = await self._retry(
                chat_id,
                lambda: self._bot.send_message(
                    chat_id,
                    text,
                    message_thread_id=thread_id,
                    reply_parameters=reply,
                    reply_markup=_keyboard(buttons),
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                ),
            )
        return message.message_id

    async def edit(self, chat_id: int, message_id: int, text: str) -> None:
        """Replace the text of a message and remove its buttons; may be repeated.

        Raises:
            MessageGone: The message does not exist any more.
            ChatMoved: The chat has another id now.
            CallRefused: Telegram refuses it.
        """
        await self._retry(chat_id, lambda: self._edit(chat_id, message_id, text))

    async def try_edit(self, chat_id: int, message_id: int, text: str) -> None:
        """Try once to edit a growing answer; errors are ignored, since the next edit corrects them."""
        self.rate.record_edit(chat_id)
        try:
            await self._edit(chat_id, message_id, text)
        except RetryAfter as error:
            self.rate.pause(chat_id, retry_after_s(error))
        except TelegramError as error:
            log.debug("telegram.edit_failed", chat_id=chat_id, reason=self.redact(str(error)))

    async def _edit(self, chat_id: int, message_id: int, text: str) -> None:
        try:
            await self._bot.edit_message_text(
                text,
                chat_id=chat_id,
                message_id=message_id,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
            )
        except BadRequest as error:
            if "not modified" not in error.message.lower():
                raise

    async def answer_press(self, query_id: str, text: str) -> None:
        """Answer the press of a button with a notification for the user.

        Raises:
            CallRefused: It is too late.
        """
        await self._retry(0, lambda: self._bot.answer_callback_query(query_id, text, show_alert=True))

    async def download(self, file_id: str, target: Path) -> int:
        """Download a file that was sent to the bot.

        Returns:
            Its size in bytes.

        Raises:
            CallRefused: Telegram refuses it, for instance because it is too large.
            OSError: ``target`` cannot be written.
        """

        async def once() -> bytes:
            about = await self._bot.get_file(file_id)
            if about.file_size is not None and about.file_size > FILE_MAX_BYTES:
                raise BadRequest("file is too big")
            return bytes(await about.download_as_bytearray(read_timeout=_DOWNLOAD_TIMEOUT_S))

        data = await self._retry(0, once)
        await asyncio.to_thread(target.write_bytes, data)
        return len(data)

    async def _retry(self, chat_id: int, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call until Telegram accepts or refuses it."""
        backoff = telegram_backoff()
        while True:
            await self.rate.wait(chat_id)
            try:
                result = await call()
            except RetryAfter as error:
                self.rate.pause(chat_id, retry_after_s(error))
                log.info("telegram.rate_limited", chat_id=chat_id, wait_s=retry_after_s(error))
                continue
            except InvalidToken:
                # The poller reports it; here we only wait for a valid token.
                await asyncio.sleep(REFUSED_TOKEN_S)
                continue
            except (BadRequest, Forbidden, ChatMigrated) as error:
                raise self._refused(error) from error
            except (NetworkError, Conflict) as error:
                if backoff.failures == 0:
                    log.warning("telegram.call_failed", reason=self.redact(str(error)))
                await asyncio.sleep(backoff.next_s())
                continue
            return result

    def _refused(self, error: TelegramError) -> CallRefused:
        reason = self.redact(error.message)
        if isinstance(error, ChatMigrated):
            return ChatMoved(f"Telegram refused the call: {reason}.", chat_id=error.new_chat_id)
        if any(mark in reason.lower() for mark in TOPIC_GONE):
            return TopicGone(f"Telegram refused the call: {reason}.")
        gone = "message to edit not found" in reason or "message can't be edited" in reason
        return (MessageGone if gone else CallRefused)(f"Telegram refused the call: {reason}.")

    def _token_refused(self) -> TokenRefused:
        return TokenRefused(
            "Telegram does not know the bot's token.",
            remedy="Set telegram_token (BRIDGE_TELEGRAM_TOKEN) to what @BotFather gave you.",
        )

    def redact(self, text: str) -> str:
        """Return a text with the token replaced."""
        return text.replace(self._token, "***")


def _through_environment() -> dict[str, Any]:
    """Return options of the library's client that make it use the proxies of the environment."""
    return {"transport": EnvironmentTransport(connections_max=_CONNECTIONS), "trust_env": False}


def _keyboard(buttons: Sequence[tuple[str, str]]) -> InlineKeyboardMarkup | None:
    if not buttons:
        return None
    return InlineKeyboardMarkup(
        [[InlineKeyboardButton(label, callback_data=data) for label, data in buttons]]
    )
