"""Polls for updates and sees to it that each is taken once.

Telegram forgets an update when a later poll confirms it; that happens only after the book knows it as taken.
What was handled and not yet confirmed when the process was killed comes again, and the book knows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from telegram import Update
from telegram.error import Conflict, RetryAfter, TelegramError

from ingress.telegram.api import POLL_S, REFUSED_TOKEN_S, Api, TokenRefused, retry_after_s
from ingress.telegram.rate_limiter import telegram_backoff
from ingress.telegram.replies import Replies
from ingress.telegram.update_handler import Desk
from ingress.telegram.update_log import Book
from ops.errors import SpoolFull
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.telegram.pending_reply import Owed

#: An update that could not be handled so often, by this process or ones that it killed, is set aside.
TRIES_MAX = 5
#: A server that answers at once without news does not know long polling: it is not asked in a busy loop.
_EMPTY_PAUSE_S = 1.0

log = get_logger(__name__)


class Trouble:
    """Says once that polling fails and why, and once that it works again.

    Args:
        tell: Shows the problem in ``3ox status``; empty: none.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._said = ""
        self.backoff = telegram_backoff()

    def begin(self, event: str, reason: str, remedy: str = "") -> None:
        """Note a failure; the first of its kind is logged."""
        if event != self._said:
            log.warning(event, reason=reason, remedy=remedy)
            self._tell(f"{reason} {remedy}".strip())
        self._said = event

    def end(self) -> None:
        """Note a success; if there was trouble before, it is logged."""
        if self._said:
            log.warning("telegram.polling_again")
            self._tell("")
        self._said = ""
        self.backoff.reset()


class Poller:
    """Takes updates.

    Args:
        api: Where they come from.
        book: Which have been taken.
        desk: What they mean.
        replies: Gives the replies.
        trouble: Says what is wrong.
    """

    def __init__(self, api: Api, book: Book, desk: Desk, replies: Replies, trouble: Trouble) -> None:
        self._api = api
        self._book = book
        self._desk = desk
        self._replies = replies
        self._trouble = trouble

    async def run(self) -> None:
        """Poll until cancelled."""
        offset: int | None = None
        while True:
            await self._replies.room()
            began_s = time.monotonic()
            updates = await self._poll(offset)
            for update in updates:
                await self._replies.room()
                await self._take(update)
                offset = update.update_id + 1
            if not updates and time.monotonic() - began_s < min(_EMPTY_PAUSE_S, POLL_S):
                await asyncio.sleep(_EMPTY_PAUSE_S)

    async def _poll(self, offset: int | None) -> Sequence[Update]:
        try:
            updates = await self._api.updates(offset)
        except (TelegramError, TokenRefused) as error:
            await wait_out(error, self._api, self._trouble)
            return ()
        self._trouble.end()
        return updates

    async def _take(self, update: Update) -> None:
        """Handle an update unless that has been done; ends when the book knows it as taken."""
        backoff = telegram_backoff()
        while True:
            try:
                turn = await asyncio.to_thread(self._book.begin, update.update_id)
                if turn.taken:
                    log.info("telegram.known_update", update_id=update.update_id)
                    return
                owed = await asyncio.to_thread(self._handle, update, turn.tries)
                await asyncio.to_thread(self._book.commit, update.update_id, owed)
            except SpoolFull as error:
                # Neither store nor disk takes it: Telegram keeps it until they do.
                self._trouble.begin("telegram.no_room", str(error))
                await asyncio.sleep(self._trouble.backoff.next_s())
                continue
            except Exception:
                log.exception("telegram.update_failed", update_id=update.update_id)
                await asyncio.sleep(backoff.next_s())
                continue
            if owed is not None:
                self._replies.adopt(owed)
            return

    def _handle(self, update: Update, tries: int) -> Owed | None:
        if tries > TRIES_MAX:
            return self._desk.set_aside(update, f"it could not be handled in {TRIES_MAX} tries")
        return self._desk.handle(update)


async def wait_out(error: Exception, api: Api, trouble: Trouble) -> None:
    """Wait until it is worth asking Telegram again, and say why if it is news."""
    if isinstance(error, RetryAfter):
        await asyncio.sleep(retry_after_s(error))
    elif isinstance(error, TokenRefused):
        trouble.begin("telegram.token_refused", error.message, error.remedy)
        await asyncio.sleep(REFUSED_TOKEN_S)
    elif isinstance(error, Conflict):
        trouble.begin(
            "telegram.conflict",
            f"another program takes this bot's updates ({api.safe(error.message)}).",
            "Stop it, or give the bridge a bot of its own; it goes on as soon as the other one ends.",
        )
        await asyncio.sleep(trouble.backoff.next_s())
    else:
        trouble.begin("telegram.away", f"Telegram cannot be reached: {api.safe(str(error))}.")
        await asyncio.sleep(trouble.backoff.next_s())
