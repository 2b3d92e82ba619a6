"""Ask the admins to approve held jobs: a message with two buttons, until the job is approved or denied."""

from __future__ import annotations

import asyncio
import itertools
import threading

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.control import list_approvals
from ingress.core.text import kind, short_id
from ingress.telegram.chats import Chats
from ingress.telegram.client import CallRefused, ChatMoved, TelegramClient
from ingress.telegram.message_text import head
from ingress.telegram.update_handler import APPROVE, DENY
from middleware.job.records import JobEvent, JobRecord, Receipt
from ops.errors import BridgeError, JobNotFound
from ops.logs import get_logger
from ops.threads import start_duty

#: Open requests at a time; further ones follow as these are decided.
_OPEN_MAX = 50
_PAYLOAD_UNITS = 1500
#: Longest interval between two checks, in case an event was missed.
_CHECK_INTERVAL_S = 60.0

log = get_logger(__name__)


class ApprovalRequests:
    """Sends approval requests to the admins and updates them when they are decided.

    Args:
        client: Client of the Bot API.
        bridge: Bridge of the jobs.
        bot_id: The bot's id.
        chats: Knows the admins to ask.
        unavailable: Set while the store is known to be unavailable.
    """

    def __init__(
        self,
        client: TelegramClient,
        bridge: Bridge,
        bot_id: str,
        chats: Chats,
        unavailable: threading.Event,
    ) -> None:
        self._client = client
        self._bridge = bridge
        self._key = bridge.reader.keys.telegram(bot_id, "asked")
        self._chats = chats
        self._unavailable = unavailable
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._open: set[str] = set()
        self._stopping = threading.Event()

    async def run(self) -> None:
        """Send and update requests until cancelled."""
        start_duty("telegram-approvals", self._follow, ended=self._stopping.is_set)
        try:
            while True:
                self._changed.clear()
                if not self._unavailable.is_set():
                    try:
                        await self._update()
                    except BridgeError as error:
                        log.warning("telegram.approvals_delayed", reason=str(error))
                try:
                    await asyncio.wait_for(self._changed.wait(), _CHECK_INTERVAL_S)
                except TimeoutError:
                    continue
        finally:
            self._stopping.set()

    def _follow(self) -> None:
        """Wake ``run`` when a job is held, or a job with an open request changes."""
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

    async def _update(self) -> None:
        """Send requests for newly held jobs, and close those of decided jobs."""
        waiting = await asyncio.to_thread(list_approvals, self._bridge, _OPEN_MAX)
        asked = await asyncio.to_thread(self._sent_messages)
        self._open = {record.job_id for record in waiting} | set(asked)
        for record in waiting:
            await self._ask(record, asked.get(record.job_id, {}))
        for job_id in asked.keys() - {record.job_id for record in waiting}:
            await self._close(job_id, asked[job_id])

    def _sent_messages(self) -> dict[str, dict[int, int]]:
        """Return the ids of the messages of each request: job id -> chat id -> message id."""
        rows = self._bridge.store.call("HGETALL", self._key)
        return {
            rows[at].decode(): msgspec.json.decode(rows[at + 1], type=dict[int, int])
            for at in range(0, len(rows), 2)
        }

    async def _ask(self, record: JobRecord, sent: dict[int, int]) -> None:
        for chat_id in self._chats.admins():
            if chat_id in sent:
                continue
            try:
                sent[chat_id] = await self._send(chat_id, record)
            except ChatMoved as error:
                await asyncio.to_thread(self._chats.move, chat_id, error.chat_id)
                self._changed.set()  # asked in the new chat
                continue
            except CallRefused as error:
                log.warning("telegram.admin_unreachable", chat_id=chat_id, reason=str(error))
                sent[chat_id] = 0
            await asyncio.to_thread(
                self._bridge.store.call, "HSET", self._key, record.job_id, msgspec.json.encode(sent)
            )

    async def _send(self, chat_id: int, record: JobRecord) -> int:
        buttons = [("Approve", f"{APPROVE}:{record.job_id}"), ("Deny", f"{DENY}:{record.job_id}")]
        return await self._client.send(chat_id, question(record), buttons=buttons)

    async def _close(self, job_id: str, sent: dict[int, int]) -> None:
        """Show the decision in the messages of a request, without buttons."""
        text = await asyncio.to_thread(self._decided, job_id)
        for chat_id, message_id in sent.items():
            if message_id:
                try:
                    await self._client.edit(chat_id, message_id, text)
                except CallRefused as error:
                    log.info("telegram.request_not_updated", chat_id=chat_id, reason=str(error))
        await asyncio.to_thread(self._bridge.store.call, "HDEL", self._key, job_id)

    def _decided(self, job_id: str) -> str:
        try:
            record = self._bridge.reader.job(job_id)
            receipt = self._bridge.reader.receipt(job_id)
        except JobNotFound:
            return f"Job {short_id(job_id)} has been removed (retention)."
        return f"{question(record)}\n\n{decision(receipt)}"


def question(record: JobRecord) -> str:
    """Return the text of an approval request."""
    payload = msgspec.json.format(msgspec.json.encode(record.payload), indent=1).decode()
    cut = head(payload, _PAYLOAD_UNITS)
    # The submitter controls the beginning of the payload, so the admin has to know that something is hidden.
    hidden = len(payload) - len(cut)
    more = f"…\n{hidden} more characters are not shown: 3ox jobs {record.job_id}" if hidden else ""
    return (
        f"Approval needed: {kind(record)} from {record.source} ({record.actor or 'unknown actor'}, "
        f"{record.trust})\n{cut}{more}\njob {record.job_id}"
    )


def decision(receipt: Receipt) -> str:
    """Return how a held job was decided, according to its receipt."""
    for before, after in itertools.pairwise(receipt.transitions):
        if before.status == "held" and after.status != "held":
            reason = after.reason if after.reason else after.status
            return reason[:1].upper() + reason[1:]
    return f"The job is {receipt.status}."
