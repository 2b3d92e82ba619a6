"""Asks the admins to approve jobs that are held for it: a message with two buttons, until it is decided."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ingress.core.control import list_approvals
from ingress.core.text import kind, short_id
from ingress.telegram.api import Api, Refused
from ingress.telegram.message_text import head
from ingress.telegram.update_handler import APPROVE, DENY
from ops.errors import BridgeError, JobNotFound
from ops.logs import get_logger
from ops.threads import start_duty

if TYPE_CHECKING:
    from ingress.core.bridge import Bridge
    from middleware.job.records import JobEvent, JobRecord, Receipt

#: Of what is asked about at one time; the next ones follow as these are decided.
_ASKED_MAX = 50
_PAYLOAD_UNITS = 1500
#: An event that went unheard is made up for by looking again.
_LOOK_AGAIN_S = 60.0

log = get_logger(__name__)


class Approvals:
    """Asks for approvals.

    Args:
        api: Telegram.
        bridge: Where the jobs are.
        bot: The bot's number.
        admins: Chats that are asked.
        is_away: Tells whether the store is away.
    """

    def __init__(
        self, api: Api, bridge: Bridge, bot: str, admins: list[int], is_away: Callable[[], bool]
    ) -> None:
        self._api = api
        self._bridge = bridge
        self._key = bridge.reader.keys.telegram(bot, "asked")
        self._admins = admins
        self._is_away = is_away
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._open: set[str] = set()
        self._stopping = threading.Event()

    async def run(self) -> None:
        """Ask, and say what was decided, until cancelled."""
        start_duty("telegram-approvals", self._hear, ended=self._stopping.is_set)
        try:
            while True:
                self._changed.clear()
                if not self._is_away():
                    try:
                        await self._look()
                    except BridgeError as error:
                        log.warning("telegram.approvals_wait", reason=str(error))
                try:
                    await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN_S)
                except TimeoutError:
                    continue
        finally:
            self._stopping.set()

    def _hear(self) -> None:
        """Wake whenever a job is held, or one that is asked about changes."""
        self._bridge.follower.watch_events(
            self._on_events, stopping=self._stopping, idle_s=5.0, on_connected=self._wake
        )

    def _on_events(self, events: list[JobEvent]) -> None:
        if any(
            event.kind == "state" and (event.status == "held" or event.job_id in self._open)
            for event in events
        ):
            self._wake()

    def _wake(self) -> None:
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _look(self) -> None:
        """Ask about what is new, and close what is decided."""
        waiting = await asyncio.to_thread(list_approvals, self._bridge, _ASKED_MAX)
        asked = await asyncio.to_thread(self._asked)
        self._open = {record.job_id for record in waiting} | set(asked)
        for record in waiting:
            await self._ask(record, asked.get(record.job_id, {}))
        for job_id in asked.keys() - {record.job_id for record in waiting}:
            await self._close(job_id, asked[job_id])

    def _asked(self) -> dict[str, dict[int, int]]:
        """Give the messages about each job, by chat."""
        rows = self._bridge.store.call("HGETALL", self._key)
        return {
            rows[at].decode(): msgspec.json.decode(rows[at + 1], type=dict[int, int])
            for at in range(0, len(rows), 2)
        }

    async def _ask(self, record: JobRecord, sent: dict[int, int]) -> None:
        for chat_id in self._admins:
            if chat_id in sent:
                continue
            try:
                sent[chat_id] = await self._api.send(
                    chat_id,
                    question(record),
                    buttons=[
                        ("Approve", f"{APPROVE}:{record.job_id}"),
                        ("Deny", f"{DENY}:{record.job_id}"),
                    ],
                )
            except Refused as error:
                log.warning("telegram.admin_unreachable", chat_id=chat_id, reason=str(error))
                sent[chat_id] = 0
            await asyncio.to_thread(
                self._bridge.store.call, "HSET", self._key, record.job_id, msgspec.json.encode(sent)
            )

    async def _close(self, job_id: str, sent: dict[int, int]) -> None:
        """Let the messages about a job say how it was decided, and take their buttons away."""
        text = await asyncio.to_thread(self._decided, job_id)
        for chat_id, message_id in sent.items():
            if message_id:
                try:
                    await self._api.edit(chat_id, message_id, text)
                except Refused as error:
                    log.info("telegram.question_gone", chat_id=chat_id, reason=str(error))
        await asyncio.to_thread(self._bridge.store.call, "HDEL", self._key, job_id)

    def _decided(self, job_id: str) -> str:
        try:
            record = self._bridge.reader.job(job_id)
            receipt = self._bridge.reader.receipt(job_id)
        except JobNotFound:
            return f"{short_id(job_id)} is not kept any more."
        return f"{question(record)}\n\n{decision(receipt)}"


def question(record: JobRecord) -> str:
    """Say what is to be approved."""
    payload = msgspec.json.format(msgspec.json.encode(record.payload), indent=1).decode()
    cut = head(payload, _PAYLOAD_UNITS)
    # Whoever asks chooses what comes first: nobody is to approve what stands behind it unseen.
    left = len(payload) - len(cut)
    more = f"…\nThis is not all of it: {left} more characters, see 3ox jobs {record.job_id}" if left else ""
    return (
        f"To be approved: {kind(record)} from {record.source} ({record.actor or 'nobody named'}, "
        f"{record.trust})\n{cut}{more}\njob {record.job_id}"
    )


def decision(receipt: Receipt) -> str:
    """Say how it was decided: what the receipt notes as the end of its being held."""
    for before, after in itertools.pairwise(receipt.transitions):
        if before.status == "held" and after.status != "held":
            said = after.reason if after.reason else after.status
            return said[:1].upper() + said[1:]
    return f"It is {receipt.status}."
