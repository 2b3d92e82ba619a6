"""Calls of the Bot API through python-telegram-bot, patient with everything that passes.

A call ends with its result or with ``Refused``: Telegram will never take it as it stands. Outages, server
errors and 429 are waited out. The token, which every URL holds, gets into no log and no message.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# Only ``3ox telegram`` imports this module; without the extra it says so before.
from telegram import (
    Bot,
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
from telegram.request import HTTPXRequest

from ingress.telegram.rate_limiter import Pace, telegram_backoff
from ops.errors import BridgeError
from ops.logs import get_logger

if TYPE_CHECKING:
    from ops.settings.load import Settings

#: How long Telegram holds a poll without news.
POLL_S = 25
#: Of updates in one answer, which is Telegram's limit too.
POLL_LIMIT = 100
#: Telegram gives bots no larger files: https://core.telegram.org/bots/api#getfile
FILE_MAX_BYTES = 20_000_000
_TIMEOUT_S = 10.0
_DOWNLOAD_TIMEOUT_S = 120.0
_CONNECTIONS = 8
#: A revoked token is tried again so often: somebody may restore it.
REFUSED_TOKEN_S = 60.0
UNREADABLE = "unreadable"

T = TypeVar("T")
log = get_logger(__name__)


class Refused(BridgeError):
    """Telegram does not take this call, now or later."""


class Gone(Refused):
    """The message to be edited is not there any more."""


class TokenRefused(BridgeError):
    """Telegram does not know the bot's token."""


class _PollRequest(HTTPXRequest):
    """Lets updates that cannot be read pass as such: one of them must not hold up the others."""

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
    except Exception as error:  # noqa: BLE001 (whatever the library makes of a malformed update)
        return {"update_id": item["update_id"], UNREADABLE: f"{type(error).__name__}: {error}"[:200]}
    return item


def retry_after_s(error: RetryAfter) -> float:
    """Give the seconds that Telegram asks us to wait."""
    wait = error.retry_after
    return max(0.1, wait.total_seconds() if isinstance(wait, timedelta) else float(wait))


class Api:
    """The bot's side of the Bot API.

    Args:
        settings: Token, address, limits.
    """

    def __init__(self, settings: Settings) -> None:
        # Otherwise the library warns of every 429; read when the error is made.
        os.environ.setdefault("PTB_TIMEDELTA", "true")
        for name in ("httpx", "httpcore", "telegram"):
            # At info level httpx writes every URL down, token included; the library repeats what we log.
            logging.getLogger(name).setLevel(logging.WARNING)
        self._token = settings.telegram_token
        self.pace = Pace(
            messages_per_s=settings.telegram_messages_per_s,
            edit_interval_s=settings.telegram_edit_interval_s,
        )
        bounds: dict[str, Any] = {
            "read_timeout": _TIMEOUT_S,
            "write_timeout": _TIMEOUT_S,
            "connect_timeout": _TIMEOUT_S,
            "pool_timeout": _TIMEOUT_S,
        }
        self._requests = (
            _PollRequest(connection_pool_size=2, **bounds),
            HTTPXRequest(connection_pool_size=_CONNECTIONS, **bounds),
        )
        root = settings.telegram_api.rstrip("/")
        self._bot = Bot(
            self._token,
            base_url=f"{root}/bot",
            base_file_url=f"{root}/file/bot",
            get_updates_request=self._requests[0],
            request=self._requests[1],
        )
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._in_order: dict[int, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close all connections."""
        for request in self._requests:
            await request.shutdown()

    async def username(self) -> str:
        """Ask who the bot is.

        Raises:
            TokenRefused: Nobody, says Telegram.
            TelegramError: It did not answer.
        """
        try:
            me = await self._bot.get_me()
        except InvalidToken as error:
            raise self._token_refused() from error
        return me.username or ""

    async def updates(self, offset: int | None) -> Sequence[Update]:
        """Poll once: confirm everything before ``offset`` and give what came since.

        Raises:
            TokenRefused: Telegram does not know the token.
            TelegramError: Anything else.
        """
        try:
            return await self._bot.get_updates(
                offset=offset,
                limit=POLL_LIMIT,
                timeout=POLL_S,
                allowed_updates=["message", "callback_query"],
            )
        except InvalidToken as error:
            raise self._token_refused() from error

    async def send(
        self,
        chat_id: int,
        text: str,
        *,
        reply_to: int | None = None,
        buttons: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Send a message, in the order of the calls within one chat.

        Args:
            chat_id: Where.
            text: At most 4096 units.
            reply_to: Message that it answers; if that has been deleted, it answers none.
            buttons: Below it, in a row: label and data.

        Returns:
            The message's id.

        Raises:
            Refused: Telegram does not take it, the bot has been blocked for instance.
        """
        reply = None
        if reply_to is not None:
            reply = ReplyParameters(reply_to, allow_sending_without_reply=True)
        async with self._in_order.setdefault(chat_id, asyncio.Lock()):
            message = await self._patiently(
                chat_id,
                lambda: self._bot.send_message(
                    chat_id,
                    text,
                    reply_parameters=reply,
                    reply_markup=_keyboard(buttons),
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                ),
            )
        return message.message_id

    async def edit(self, chat_id: int, message_id: int, text: str) -> None:
        """Let a message show this text and no buttons; the same again does no harm.

        Raises:
            Gone: There is no such message any more.
            Refused: Telegram does not take it.
        """
        await self._patiently(chat_id, lambda: self._edit(chat_id, message_id, text))

    async def show(self, chat_id: int, message_id: int, text: str) -> None:
        """Edit once, for a growing answer: what fails is made up for by the next time or the end."""
        self.pace.shown(chat_id)
        try:
            async with self._free:
                await self._edit(chat_id, message_id, text)
        except RetryAfter as error:
            self.pace.silence(chat_id, retry_after_s(error))
        except TelegramError as error:
            log.debug("telegram.not_shown", chat_id=chat_id, reason=self.safe(str(error)))

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
        """Answer the press of a button: a note that the presser sees for a moment.

        Raises:
            Refused: It is too late.
        """
        await self._patiently(0, lambda: self._bot.answer_callback_query(query_id, text, show_alert=True))

    async def fetch(self, file_id: str, target: Path) -> int:
        """Write a file that was sent to the bot to disk.

        Returns:
            Its size in bytes.

        Raises:
            Refused: Telegram does not give it, because it is too large for instance.
            OSError: It cannot be written.
        """

        async def once() -> bytes:
            about = await self._bot.get_file(file_id)
            if about.file_size is not None and about.file_size > FILE_MAX_BYTES:
                raise BadRequest("file is too big")
            return bytes(await about.download_as_bytearray(read_timeout=_DOWNLOAD_TIMEOUT_S))

        data = await self._patiently(0, once)
        await asyncio.to_thread(target.write_bytes, data)
        return len(data)

    async def _patiently(self, chat_id: int, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call until Telegram takes or refuses it."""
        backoff = telegram_backoff()
        while True:
            await self.pace.turn(chat_id)
            try:
                async with self._free:
                    result = await call()
            except RetryAfter as error:
                self.pace.silence(chat_id, retry_after_s(error))
                log.info("telegram.flood", chat_id=chat_id, wait_s=retry_after_s(error))
                continue
            except InvalidToken:
                # The poller says so; here it is only waited for.
                await asyncio.sleep(REFUSED_TOKEN_S)
                continue
            except (BadRequest, Forbidden, ChatMigrated) as error:
                raise self._refused(error) from error
            except (NetworkError, Conflict) as error:
                if backoff.failures == 0:
                    log.warning("telegram.call_failed", reason=self.safe(str(error)))
                await asyncio.sleep(backoff.next_s())
                continue
            return result

    def _refused(self, error: TelegramError) -> Refused:
        said = self.safe(error.message)
        gone = "message to edit not found" in said or "message can't be edited" in said
        return (Gone if gone else Refused)(f"Telegram refuses: {said}.")

    def _token_refused(self) -> TokenRefused:
        return TokenRefused(
            "Telegram does not know the bot's token.",
            remedy="Set telegram_token (BRIDGE_TELEGRAM_TOKEN) to what @BotFather gave you.",
        )

    def safe(self, text: str) -> str:
        """Give a text without the token."""
        return text.replace(self._token, "***")


def _keyboard(buttons: Sequence[tuple[str, str]]) -> InlineKeyboardMarkup | None:
    if not buttons:
        return None
    return InlineKeyboardMarkup(
        [[InlineKeyboardButton(label, callback_data=data) for label, data in buttons]]
    )
