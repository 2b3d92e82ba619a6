"""Poll for updates, and have each of them handled once.

Telegram drops an update when a later poll confirms it, which happens only after the update log has recorded
it as handled. Updates that were handled but not confirmed when the process was killed are sent again, and
recognized by the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from telegram import Update
from telegram.error import Conflict, RetryAfter, TelegramError

from ingress.telegram.client import POLL_S, REFUSED_TOKEN_S, TelegramClient, TokenRefused, retry_after_s
from ingress.telegram.pauses import telegram_backoff
from ingress.telegram.pending_reply import PendingReply
from ingress.telegram.replies import Replies
from ingress.telegram.update_handler import UpdateHandler
from ingress.telegram.update_log import UpdateLog
from ops.errors import SpoolFull
from ops.logs import get_logger

#: An update whose handling failed this often, in this process or in ones that crashed, is quarantined.
ATTEMPTS_MAX = 5
#: Pause after an empty answer of a server that does not hold the poll open.
_EMPTY_PAUSE_S = 1.0

log = get_logger(__name__)


class PollingProblem:
    """Logs when polling starts to fail, with the reason, and when it works again.

    Args:
        report: Shows the problem in ``3ox status``; called with an empty text when it is over.

    Attributes:
        backoff: Waits between the attempts of a series of failures.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._event = ""
        self.backoff = telegram_backoff()

    def begin(self, event: str, reason: str, remedy: str = "") -> None:
        """Record a failure; the first of its kind is logged."""
        if event != self._event:
            log.warning(event, reason=reason, remedy=remedy)
            self._report(f"{reason} {remedy}".strip())
        self._event = event

    def end(self) -> None:
        """Record a success; the first after failures is logged."""
        if self._event:
            log.warning("telegram.polling_again")
            self._report("")
        self._event = ""
        self.backoff.reset()


class Poller:
    """Polls for updates and has them handled one after the other.

    Args:
        client: Client of the Bot API.
        update_log: Records which updates have been handled.
        handler: Handles updates.
        replies: Delivers replies.
        problem: Reports failures.
    """

    def __init__(
        self,
        client: TelegramClient,
        update_log: UpdateLog,
        handler: UpdateHandler,
        replies: Replies,
        problem: PollingProblem,
    ) -> None:
        self._client = client
        self._update_log = update_log
        self._handler = handler
        self._replies = replies
        self._problem = problem

    async def run(self) -> None:
        """Poll until cancelled."""
        offset: int | None = None
        while True:
            await self._replies.wait_for_room()
            began_s = time.monotonic()
            updates = await self._poll(offset)
            for update in updates:
                await self._replies.wait_for_room()
                await self._process(update)
                offset = update.update_id + 1
            if not updates and time.monotonic() - began_s < min(_EMPTY_PAUSE_S, POLL_S):
                await asyncio.sleep(_EMPTY_PAUSE_S)

    async def _poll(self, offset: int | None) -> Sequence[Update]:
        try:
            updates = await self._client.updates(offset)
        except (TelegramError, TokenRefused) as error:
            await wait_after_failure(error, self._client, self._problem)
            return ()
        self._problem.end()
        return updates

    async def _process(self, update: Update) -> None:
        """Handle an update unless it has been handled; return when the update log has recorded that."""
        backoff = telegram_backoff()
        while True:
            try:
                status = await asyncio.to_thread(self._update_log.start, update.update_id)
                if status.handled:
                    log.info("telegram.known_update", update_id=update.update_id)
                    return
                reply = await asyncio.to_thread(self._handle, update, status.attempts)
                await asyncio.to_thread(self._update_log.finish, update.update_id, reply)
            except SpoolFull as error:
                # Neither store nor disk accepts it; Telegram keeps the update meanwhile.
                self._problem.begin("telegram.no_room", str(error))
                await asyncio.sleep(self._problem.backoff.next_s())
                continue
            except Exception:
                log.exception("telegram.update_failed", update_id=update.update_id)
                await asyncio.sleep(backoff.next_s())
                continue
            if reply is not None:
                self._replies.deliver(reply)
            return

    def _handle(self, update: Update, attempts: int) -> PendingReply | None:
        if attempts > ATTEMPTS_MAX:
            return self._handler.quarantine(update, f"handling it failed {ATTEMPTS_MAX} times")
        return self._handler.handle(update)


async def wait_after_failure(error: Exception, client: TelegramClient, problem: PollingProblem) -> None:
    """Report a failed call and wait until another attempt makes sense.

    Args:
        error: What the call raised.
        client: Client of the Bot API.
        problem: Reports the failure.
    """
    if isinstance(error, RetryAfter):
        await asyncio.sleep(retry_after_s(error))
    elif isinstance(error, TokenRefused):
        problem.begin("telegram.token_refused", error.message, error.remedy)
        await asyncio.sleep(REFUSED_TOKEN_S)
    elif isinstance(error, Conflict):
        problem.begin(
            "telegram.conflict",
            f"Another program polls for this bot's updates ({client.redact(error.message)}).",
            "Stop it, or use another bot; polling continues when it has stopped.",
        )
        await asyncio.sleep(problem.backoff.next_s())
    else:
        problem.begin("telegram.away", f"Telegram cannot be reached: {client.redact(str(error))}.")
        await asyncio.sleep(problem.backoff.next_s())
