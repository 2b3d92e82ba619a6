"""Puts the parts of the Telegram door together and runs them until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from telegram.error import TelegramError

from ingress.core.daemon import Daemon
from ingress.telegram.api import Api, TokenRefused
from ingress.telegram.approvals import Approvals
from ingress.telegram.poller import Poller, Trouble, wait_out
from ingress.telegram.replies import Replies
from ingress.telegram.update_handler import Bot, Desk, bot_number
from ingress.telegram.update_log import Book, Shelf
from ops.backoff import Backoff
from ops.errors import StoreUnreachable
from ops.logs import get_logger

_PULSE_S = 1.0

log = get_logger(__name__)


def serve_telegram(daemon: Daemon) -> None:
    """Serve until the daemon is told to stop."""
    asyncio.run(_serve(daemon))


async def _serve(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def hear() -> None:
        loop.call_soon_threadsafe(stop.set)

    daemon.on_stop(hear)
    if daemon.stopping.is_set():
        return
    door = Door(daemon)
    duties = [asyncio.create_task(duty) for duty in door.duties()]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*duties, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # A duty ends only by an error that it did not expect: the process ends and is started again.
            task.result()
    finally:
        for task in (*duties, stopped):
            task.cancel()
        await asyncio.gather(*duties, stopped, return_exceptions=True)
        await door.close()


class Door:
    """The Telegram door.

    Args:
        daemon: Its process.
    """

    def __init__(self, daemon: Daemon) -> None:
        bridge = daemon.bridge
        self._daemon = daemon
        self._settings = daemon.loaded.settings
        self._number = bot_number(self._settings.telegram_token)
        self._api = Api(self._settings)
        self._away = asyncio.Event()
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.call_soon_threadsafe(self._away.set)

        self._book = Book(
            bridge.store,
            bridge.reader.keys,
            self._number,
            Shelf(daemon.loaded.workspace.state_dir / "telegram" / self._number),
            lost,
        )
        self._replies = Replies(self._api, self._book, bridge, daemon.acceptance)
        self._trouble = Trouble(lambda problem: daemon.tell(problem=problem))

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        """Give what runs for as long as the door is open."""
        duties = [self._pulse(), self._poll(), self._mend()]
        admins = self._settings.telegram_admins
        if admins:
            approvals = Approvals(
                self._api, self._daemon.bridge, self._number, list(admins), lambda: self._book.away
            )
            duties.append(approvals.run())
        return duties

    async def close(self) -> None:
        """Close everything; what is owed stays owed."""
        await self._replies.stop()
        await self._api.close()

    async def _pulse(self) -> None:
        while True:
            self._daemon.pulse()
            await asyncio.sleep(_PULSE_S)

    async def _mend(self) -> None:
        """Bring the book up to date whenever the store is back, and adopt what it says is owed."""
        self._replies.start()
        self._away.set()
        backoff = Backoff()
        while True:
            await self._away.wait()
            # Before it is mended: a loss in between sets it again.
            self._away.clear()
            try:
                await asyncio.to_thread(self._book.mend)
            except StoreUnreachable:
                if backoff.failures == 0:
                    # What is on disk needs no store to be said.
                    await self._replies.adopt_all()
                await asyncio.sleep(backoff.next_s())
                self._away.set()
                continue
            backoff.reset()
            await self._replies.adopt_all()

    async def _poll(self) -> None:
        if not self._settings.telegram_allow:
            log.warning(
                "telegram.nobody_allowed",
                remedy="Write to the bot: the log then tells your chat's id; put it into telegram_allow.",
            )
        username = await self._who_am_i()
        log.info("telegram.polling", bot=username, api=self._settings.telegram_api)
        desk = Desk(
            self._daemon.bridge,
            self._daemon.acceptance,
            self._settings,
            Bot(self._number, username),
            lambda: self._book.away,
        )
        await Poller(self._api, self._book, desk, self._replies, self._trouble).run()

    async def _who_am_i(self) -> str:
        while True:
            try:
                username = await self._api.username()
            except (TelegramError, TokenRefused) as error:
                await wait_out(error, self._api, self._trouble)
                continue
            self._trouble.end()
            return username


def serve(daemon: Daemon) -> None:
    """Serve until the daemon is told to stop.

    The daemon is ready before python-telegram-bot is imported, which takes half a second: the spool is handed
    over already, and Telegram keeps what is written meanwhile.
    """
    daemon.ready()
    from ingress.telegram.bot import serve_telegram

    serve_telegram(daemon)
