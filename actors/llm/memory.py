"""The memory of a session: its last messages as context for a prompt, and the writing of new ones.

    memory = recall(payload.prompt)
    if memory.reply is not None: ...          # the prompt asked about the session itself
    ...                                       # ask a model with memory.messages before the prompt
    memory.remember(answer)

Without a session the memory is empty and costs nothing. Prompt and answer of a job are written in one atomic
step, once, while its worker holds the job; see ``remember.lua``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from actors.context import JobContext, bridge_scripts, current_job, settings
from actors.llm.provider import Message
from actors.llm.session_questions import answer_session_question, is_session_question
from middleware.broker.session_writes import remember
from middleware.context import IN_PROCESS
from middleware.job.records import utc_now
from middleware.job.sessions import SessionFacts, SessionMessage, Sessions, cut_text
from ops.backoff import Backoff
from ops.errors import JobFailed, SessionNotFound, StoreUnreachable
from ops.logs import get_logger
from ops.settings.load import LoadedSettings

#: Wait for a store that becomes unavailable during a job; without it the job cannot be settled anyway.
PATIENCE_S = 60.0
#: A token of English text has about four bytes.
BYTES_PER_TOKEN = 4
#: Tokens that a provider adds to each message.
_TOKENS_PER_MESSAGE = 4

T = TypeVar("T")
log = get_logger(__name__)


class Memory:
    """The memory of a session for one prompt.

    Attributes:
        messages: Earlier messages, oldest first, within ``session_context_tokens``; the first is a prompt.
        reply: Answer to a prompt about the session itself, for which no model is needed; else None.
    """

    def __init__(
        self,
        messages: list[Message] | None = None,
        *,
        reply: str | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.messages = [] if messages is None else messages
        self.reply = reply
        self._write = write

    def remember(self, answer: str) -> None:
        """Write the prompt and its complete answer into the session.

        If the store is unavailable for longer than ``PATIENCE_S``, that is logged and the job goes on: the
        answer matters more than its memory.

        Raises:
            JobInterrupted: The job was cancelled or ran out of time.
        """
        if self._write is not None:
            self._write(answer)


def recall(prompt: str) -> Memory:
    """Return the memory of the current job's session.

    Args:
        prompt: The prompt.

    Raises:
        JobFailed: The store is unavailable; worth a retry.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    context = current_job()
    session_id = context.job.session_id
    if session_id is None:
        return Memory()
    if context.worker_id == IN_PROCESS:
        context.log(
            f"3ox: the store is unavailable: answering without the session {session_id!r}.",
            stream="err",
        )
        return Memory()
    loaded = settings()
    session = _Session(context, loaded, session_id)
    kept = session.read()
    if is_session_question(prompt):
        return Memory(reply=answer_session_question(session_id, session.facts(), kept))
    asked_at = utc_now()
    return Memory(
        within(kept, loaded.settings.session_context_tokens),
        write=lambda answer: session.write(prompt, asked_at, answer),
    )


def within(kept: list[SessionMessage], limit_tokens: int) -> list[Message]:
    """Return the latest complete turns of a conversation that fit into a limit.

    Args:
        kept: Its messages, oldest first.
        limit_tokens: Limit, by ``count_tokens``. If not even the last turn fits, it is cut.
    """
    taken: list[SessionMessage] = []
    left = limit_tokens
    at = len(kept)
    while at > 0:
        start = (
            at - 2 if at > 1 and kept[at - 2].role == "user" and kept[at - 1].role == "assistant" else at - 1
        )
        turn = kept[start:at]
        if turn[0].role != "user":
            break
        size = sum(count_tokens(message.text) for message in turn)
        if size > left:
            if not taken:
                taken = _cut_turn(turn, left)
            break
        taken = turn + taken
        left -= size
        at = start
    return [Message(message.role, message.text) for message in taken]


def count_tokens(text: str) -> int:
    """Return an estimate of a message's tokens; exact counts need the model's own tokenizer."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE


def _cut_turn(turn: list[SessionMessage], limit_tokens: int) -> list[SessionMessage]:
    """Return a turn with each text cut to an equal share of the limit; empty if that is too small."""
    room = (limit_tokens // len(turn) - _TOKENS_PER_MESSAGE) * BYTES_PER_TOKEN
    if room < BYTES_PER_TOKEN * _TOKENS_PER_MESSAGE:
        return []
    return [
        msgspec.structs.replace(
            message, text=message.text.encode(errors="replace")[:room].decode(errors="ignore")
        )
        for message in turn
    ]


class _Session:
    """Reads and writes the session of the current job.

    Args:
        context: Context of the job.
        loaded: Settings of this process.
        session_id: Id of the session.
    """

    def __init__(self, context: JobContext, loaded: LoadedSettings, session_id: str) -> None:
        self._context = context
        self._settings = loaded.settings
        self._session_id = session_id
        self._scripts = bridge_scripts(loaded)
        self._sessions = Sessions(self._scripts.store, loaded.settings.key_prefix)

    def read(self) -> list[SessionMessage]:
        found = self._look_up(lambda: self._sessions.messages(self._session_id))
        # Skip messages of an earlier attempt of this job whose worker died before it settled.
        return [message for message in found if message.job_id != self._context.job_id]

    def facts(self) -> SessionFacts | None:
        try:
            return self._look_up(lambda: self._sessions.facts(self._session_id))
        except SessionNotFound:
            return None

    def write(self, prompt: str, asked_at: str, answer: str) -> None:
        context, settings = self._context, self._settings
        job_id = context.job_id
        question = SessionMessage(
            job_id=job_id, role="user", at=asked_at, text=cut_text(prompt), source=context.job.source
        )
        reply = SessionMessage(job_id=job_id, role="assistant", at=utc_now(), text=cut_text(answer))

        def act() -> bool:
            return remember(
                self._scripts,
                self._session_id,
                question,
                reply,
                worker_id=context.worker_id,
                attempt=context.attempt,
                messages_max=settings.session_messages_max,
                ttl_s=settings.session_ttl_s,
            )

        try:
            written = _patiently(context, act)
        except StoreUnreachable as error:
            log.warning("session.not_written", job_id=job_id, session_id=self._session_id, reason=str(error))
            return
        if not written:
            log.info("session.superseded", job_id=job_id, session_id=self._session_id)

    def _look_up(self, act: Callable[[], T]) -> T:
        try:
            return _patiently(self._context, act)
        except StoreUnreachable as error:
            raise JobFailed(
                f"The session {self._session_id!r} cannot be read: {error.message}", remedy=error.remedy
            ) from error


def _patiently(context: JobContext, act: Callable[[], T]) -> T:
    """Repeat a call until the store answers.

    Raises:
        StoreUnreachable: It did not answer within ``PATIENCE_S``.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    ends_at_s = time.monotonic() + PATIENCE_S
    stopped = threading.Event()
    backoff = Backoff()
    with context.on_interrupt(lambda _kind: stopped.set()):
        while True:
            context.check_cancelled()
            try:
                return act()
            except StoreUnreachable:
                if time.monotonic() > ends_at_s:
                    raise
            backoff.wait(stopped)
