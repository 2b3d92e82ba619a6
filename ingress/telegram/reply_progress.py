"""Follow the job of a pending reply: show its output as it grows, and return the text of its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import time

from ingress.core.acceptance import Acceptance
from ingress.core.spooled_jobs import job_id_of
from ingress.telegram import messages
from ingress.telegram.client import TelegramClient
from ingress.telegram.pending_reply import PendingReply
from ingress.telegram.update_log import UpdateLog
from middleware.job.reader import Reader
from middleware.job.records import JobRecord, OutputChunk
from ops.errors import JobNotFound, StoreUnreachable

#: Longest wait for a change, in case an event was missed.
_CHECK_INTERVAL_S = 60.0
#: Interval of checks while the store is unavailable; a reconnection wakes all replies before that.
_UNAVAILABLE_CHECK_S = 5.0
#: Characters of a running job's output that are kept to be shown.
_OUTPUT_MAX_CHARS = 16_000
_REFUSED = "The store is available again but did not accept this job. The reason is in 3ox.log."
_REMOVED = "This job has finished and has been removed (retention)."


class JobSignal:
    """Signals changes of one job from the listener to the task of its reply."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._state_changed = False

    def notify(self, *, state: bool) -> None:
        """Signal a change.

        Args:
            state: Whether the job's state may have changed.
        """
        self._state_changed = self._state_changed or state
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a change; return whether the state may have changed or the time ran out."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return True
        self._changed.clear()
        state_changed, self._state_changed = self._state_changed, False
        return state_changed

    async def wait_for_state(self, timeout_s: float) -> bool:
        """Wait for a change of the state; return whether there was one in this time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
            self._changed.clear()
            if self._state_changed:
                self._state_changed = False
                return True
        return False


class RunningOutput:
    """Output of a running job so far.

    Args:
        shown: Text that the chat shows before the job is known.

    Attributes:
        attempt: The attempt that wrote it.
        after: Id of the last chunk that has been read.
        text: The end of the output.
        shown: Text that the chat shows.
    """

    def __init__(self, shown: str) -> None:
        self.attempt = 0
        self.after = "-"
        self.text = ""
        self.shown = shown

    def start_attempt(self, attempt: int) -> None:
        """Drop the output of an earlier attempt, which does not belong to the answer."""
        if attempt != self.attempt:
            self.attempt, self.text = attempt, ""

    def add(self, chunks: list[OutputChunk]) -> None:
        """Add new chunks."""
        if chunks:
            self.after = chunks[-1].entry_id
            text = "".join(chunk.text for chunk in chunks if chunk.stream == "out")
            self.text = (self.text + text)[-_OUTPUT_MAX_CHARS:]


class ReplyProgress:
    """Follows the jobs of pending replies.

    Args:
        client: Client of the Bot API, to show growing answers.
        update_log: Notified when the store turns out to be unavailable.
        reader: Reads jobs.
        acceptance: Spool of this process, and whether the store is available.
    """

    def __init__(
        self, client: TelegramClient, update_log: UpdateLog, reader: Reader, acceptance: Acceptance
    ) -> None:
        self._client = client
        self._update_log = update_log
        self._reader = reader
        self._acceptance = acceptance

    async def follow(self, reply: PendingReply, signal: JobSignal) -> str:
        """Follow the job of a reply until it has finished; return the text of its outcome.

        Args:
            reply: A reply with a job and at least one message.
            signal: Signals changes of the job.
        """
        output = RunningOutput("" if reply.spooled else messages.working(reply.job_id))
        waiting, misses = "", 0
        while True:
            if self._acceptance.store_unavailable.is_set():
                await signal.wait(_UNAVAILABLE_CHECK_S)
                continue
            try:
                record = await asyncio.to_thread(self._reader.job, reply.job_id)
            except StoreUnreachable as error:
                # The flag spares the other replies the wait for the timeout.
                self._update_log.report_outage(error)
                continue
            except JobNotFound:
                # Looked up twice, since the spool may just have handed it over to the store.
                misses = 0 if await asyncio.to_thread(self._is_spooled, reply.job_id) else misses + 1
                if misses > 1:
                    return _REFUSED if reply.spooled else _REMOVED
                if misses == 0:
                    await signal.wait(_UNAVAILABLE_CHECK_S)
                continue
            if record.is_final:
                return messages.outcome(record)
            if record.status == "processing":
                output.start_attempt(record.attempt)
                await self._show_output(reply, signal, output)
                continue
            text = messages.waiting(record)
            if text != waiting and (record.status == "held" or waiting):
                await self._client.try_edit(reply.chat_id, reply.message_ids[0], text)
            waiting = text
            await signal.wait(_CHECK_INTERVAL_S)

    def _is_spooled(self, job_id: str) -> bool:
        return any(job_id_of(entry) == job_id for entry in self._acceptance.spool.entries())

    async def _show_output(self, reply: PendingReply, signal: JobSignal, output: RunningOutput) -> None:
        """Show the output of a running job until its state may have changed."""
        state_changed = False
        # Read before the first wait: output that arrived with the start of the job has signalled already.
        while not state_changed:
            if await signal.wait_for_state(self._client.rate.edit_wait_s(reply.chat_id)):
                return
            try:
                record, chunks = await asyncio.to_thread(self._read, reply.job_id, output.after)
            except JobNotFound:
                return
            except StoreUnreachable as error:
                self._update_log.report_outage(error)
                return
            if record.status != "processing" or record.attempt != output.attempt:
                signal.notify(state=True)
                return
            output.add(chunks)
            text = messages.growing(record, output.text)
            if text != output.shown:
                await self._client.try_edit(reply.chat_id, reply.message_ids[0], text)
                output.shown = text
            state_changed = await signal.wait(_CHECK_INTERVAL_S)

    def _read(self, job_id: str, after: str) -> tuple[JobRecord, list[OutputChunk]]:
        return self._reader.job(job_id), self._reader.output(job_id, after)
