"""The bot: assembles the parts of the Telegram interface and runs them until the daemon stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from telegram.error import TelegramError

from ingress.core.daemon import Daemon
from ingress.telegram.approvals import ApprovalRequests
from ingress.telegram.chats import Chats
from ingress.telegram.client import TelegramClient, TokenRefused
from ingress.telegram.poller import Poller, PollingProblem, wait_after_failure
from ingress.telegram.replies import Replies
from ingress.telegram.update_handler import BotIdentity, UpdateHandler
from ingress.telegram.update_log import ReplyFiles, UpdateLog
from middleware.telegram_chats import ChatMigrations, bot_id_of
from ops.backoff import Backoff
from ops.errors import StoreUnreachable
from ops.logs import get_logger

_PULSE_S = 1.0
#: Interval at which the bot checks whether the update log has to be synchronized.
_SYNCHRONIZATION_CHECK_S = 0.25

log = get_logger(__name__)


def serve(daemon: Daemon) -> None:
    """Run the bot until the daemon stops."""
    asyncio.run(_serve(daemon))


async def _serve(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def request_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    daemon.on_stop(request_stop)
    if daemon.stopping.is_set():
        return
    bot = TelegramBot(daemon)
    # It serves whether Telegram can be reached or not; what is wrong with the settings is known now.
    daemon.ready()
    tasks = [asyncio.create_task(task) for task in bot.tasks()]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # A task ends only with an unexpected error, which ends the process; its supervisor restarts it.
            task.result()
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)
        await bot.close()


class TelegramBot:
    """The parts of the Telegram interface of one process.

    Args:
        daemon: The process.
    """

    def __init__(self, daemon: Daemon) -> None:
        bridge = daemon.bridge
        self._daemon = daemon
        self._settings = daemon.loaded.settings
        self._bot_id = bot_id_of(self._settings.telegram_token)
        self._client = TelegramClient(self._settings)
        folder = daemon.loaded.workspace.state_dir / "telegram" / self._bot_id
        self._update_log = UpdateLog(
            bridge.store,
            bridge.reader.keys,
            self._bot_id,
            ReplyFiles(folder),
            daemon.acceptance.store_unavailable,
        )
        self._chats = Chats(
            self._settings.telegram_allow,
            self._settings.telegram_admins,
            ChatMigrations(bridge.store, bridge.reader.keys, self._bot_id),
            folder / "migrated" / "chats.json",
            daemon.acceptance.store_unavailable,
        )
        self._replies = Replies(self._client, self._update_log, bridge, daemon.acceptance, self._chats)
        self._problem = PollingProblem(lambda problem: daemon.report(problem=problem))

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs at the same time until the daemon stops."""
        tasks = [self._pulse(), self._poll(), self._synchronize()]
        if self._settings.telegram_admins:
            approvals = ApprovalRequests(
                self._client,
                self._daemon.bridge,
                self._bot_id,
                self._chats,
                self._daemon.acceptance.store_unavailable,
            )
            tasks.append(approvals.run())
        return tasks

    async def close(self) -> None:
        """Stop deliveries and close all connections; undelivered replies stay pending."""
        await self._replies.stop()
        await self._client.close()

    async def _pulse(self) -> None:
        while True:
            self._daemon.pulse()
            await asyncio.sleep(_PULSE_S)

    async def _synchronize(self) -> None:
        """Synchronize the update log when the store is available again, and resume pending replies.

        At the start all replies that an earlier process left pending are resumed.
        """
        self._replies.start()
        backoff = Backoff()
        resume = True
        while True:
            if not resume and not self._update_log.needs_synchronization:
                await asyncio.sleep(_SYNCHRONIZATION_CHECK_S)
                continue
            try:
                await asyncio.to_thread(self._update_log.synchronize)
                await asyncio.to_thread(self._chats.synchronize)
            except StoreUnreachable as error:
                self._update_log.report_outage(error)
                if backoff.failures == 0:
                    # Replies in files can be delivered without the store.
                    await self._replies.deliver_all()
                resume = True
                await asyncio.sleep(backoff.next_s())
                continue
            if backoff.failures:
                log.warning("telegram.store_available")
            resume = False
            backoff.reset()
            await self._replies.deliver_all()

    async def _poll(self) -> None:
        if not self._settings.telegram_allow:
            log.warning(
                "telegram.no_allowed_chats",
                remedy="Send the bot a message; the log then shows your chat's id. Add it to telegram_allow.",
            )
        username = await self._fetch_username()
        log.info("telegram.polling", bot=username, api=self._settings.telegram_api)
        handler = UpdateHandler(
            self._daemon.bridge,
            self._daemon.acceptance,
            self._chats,
            BotIdentity(self._bot_id, username),
        )
        await Poller(self._client, self._update_log, handler, self._replies, self._problem).run()

    async def _fetch_username(self) -> str:
        while True:
            try:
                username = await self._client.username()
            except (TelegramError, TokenRefused) as error:
                await wait_after_failure(error, self._client, self._problem)
                continue
            self._problem.end()
            return username
