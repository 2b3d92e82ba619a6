"""Follows one job for its reply: shows the answer as it grows, and gives the text of its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from ingress.core.spooled_jobs import job_id_of
from ingress.telegram import messages
from ingress.telegram.api import Api
from ingress.telegram.pending_reply import Owed
from ingress.telegram.update_log import Book
from ops.errors import JobNotFound, StoreUnreachable

if TYPE_CHECKING:
    from ingress.core.acceptance import Acceptance
    from middleware.job.reader import Reader
    from middleware.job.records import JobRecord, OutputChunk

#: Ends a silent wait now and then, should an event have gone unheard.
_LISTEN_S = 60.0
#: While the store is away: the connection that is made anew wakes all, this is for the rest.
_AWAY_S = 5.0
#: Of a running job's output so much is kept to be shown.
_KEPT_CHARS = 16_000
_LOST = "The store is back and did not take this job; 3ox.log says why."
_FORGOTTEN = "This job has ended long ago and is not kept any more."


class Watch:
    """What has been heard of a job and not been looked at."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._state = False

    def wake(self, *, state: bool) -> None:
        """Note a change; ``state``: it may be one of the job's state."""
        self._state = self._state or state
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for any change; tells whether the state may have changed, or the time is out."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return True
        self._changed.clear()
        state, self._state = self._state, False
        return state

    async def wait_for_state(self, timeout_s: float) -> bool:
        """Wait for a change of the state; tells whether there was one in this time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
            self._changed.clear()
            if self._state:
                self._state = False
                return True
        return False


class Growth:
    """What a running job has written so far.

    Args:
        shown: What the chat sees before anything is known of the job.

    Attributes:
        attempt: In which attempt.
        after: The last piece that has been read.
        written: The end of it.
        shown: What the chat sees.
    """

    def __init__(self, shown: str) -> None:
        self.attempt = 0
        self.after = "-"
        self.written = ""
        self.shown = shown

    def of(self, attempt: int) -> Growth:
        """Begin anew if this is another attempt: what an earlier one wrote is no part of the answer."""
        if attempt != self.attempt:
            self.attempt, self.written = attempt, ""
        return self

    def add(self, chunks: list[OutputChunk]) -> None:
        """Add what has come since."""
        if chunks:
            self.after = chunks[-1].entry_id
            text = "".join(chunk.text for chunk in chunks if chunk.stream == "out")
            self.written = (self.written + text)[-_KEPT_CHARS:]


class Following:
    """Follows jobs.

    Args:
        api: Where the growing answer is shown.
        book: Knows whether the store is away.
        reader: Where the jobs are read.
        acceptance: Knows what is still in the spool.
    """

    def __init__(self, api: Api, book: Book, reader: Reader, acceptance: Acceptance) -> None:
        self._api = api
        self._book = book
        self._reader = reader
        self._acceptance = acceptance

    async def to_end(self, owed: Owed, watch: Watch) -> str:
        """Follow a job to its end and give the text that says what became of it."""
        growth = Growth("" if owed.spooled else messages.working(owed.job_id))
        said, missing = "", 0
        while True:
            if self._book.away:
                await watch.wait(_AWAY_S)
                continue
            try:
                record = await asyncio.to_thread(self._reader.job, owed.job_id)
            except StoreUnreachable as error:
                # One has waited for the time-out; the others need not.
                await asyncio.to_thread(self._book.lose, error)
                continue
            except JobNotFound:
                # Looked for twice: between store and spool it may just have been handed over.
                missing = 0 if await asyncio.to_thread(self._is_spooled, owed.job_id) else missing + 1
                if missing > 1:
                    return _LOST if owed.spooled else _FORGOTTEN
                if missing == 0:
                    await watch.wait(_AWAY_S)
                continue
            if record.is_final:
                return messages.outcome(record)
            if record.status == "processing":
                await self._show_growing(owed, watch, growth.of(record.attempt))
                continue
            text = messages.waiting(record)
            if text != said and (record.status == "held" or said):
                await self._api.show(owed.chat_id, owed.message_ids[0], text)
            said = text
            await watch.wait(_LISTEN_S)

    def _is_spooled(self, job_id: str) -> bool:
        return any(job_id_of(entry) == job_id for entry in self._acceptance.spool.entries())

    async def _show_growing(self, owed: Owed, watch: Watch, growth: Growth) -> None:
        """Show what a running job writes, until its state may have changed."""
        ended = False
        # Looked at before it is waited for: what came with the news of its start has woken us already.
        while not ended:
            if await watch.wait_for_state(self._api.pace.show_wait_s(owed.chat_id)):
                return
            try:
                record, chunks = await asyncio.to_thread(self._read_on, owed.job_id, growth.after)
            except JobNotFound:
                return
            except StoreUnreachable as error:
                await asyncio.to_thread(self._book.lose, error)
                return
            if record.status != "processing" or record.attempt != growth.attempt:
                watch.wake(state=True)
                return
            growth.add(chunks)
            text = messages.growing(record, growth.written)
            if text != growth.shown:
                await self._api.show(owed.chat_id, owed.message_ids[0], text)
                growth.shown = text
            ended = await watch.wait(_LISTEN_S)

    def _read_on(self, job_id: str, after: str) -> tuple[JobRecord, list[OutputChunk]]:
        return self._reader.job(job_id), self._reader.output(job_id, after)
