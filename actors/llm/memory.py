"""What a conversation remembers: its last messages as context, and what is said into it.

    memory = recall(payload.prompt)
    if memory.reply is not None: ...          # the question was about the conversation itself
    ...                                       # ask a model with memory.messages before the question
    memory.remember(answer)

Without a session all of it is empty and costs nothing. A job's question and answer are written in one step
and once, while its worker still holds it; see ``remember.lua``.
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

#: A store that goes away while a question is answered is waited for so long; without it the job cannot be
#: settled anyway.
PATIENCE_S = 60.0
#: A token has about four bytes in English, fewer in most other languages, of which more are a letter.
BYTES_PER_TOKEN = 4
#: What a provider adds to each message.
_TOKENS_PER_MESSAGE = 4

T = TypeVar("T")
log = get_logger(__name__)


class Memory:
    """What one question knows of its session.

    Attributes:
        messages: What was said before, oldest first, within ``session_context_tokens``; the first is the
            user's.
        reply: The answer, if the question is about the session itself and no model has to be asked.
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
        """Write the question and its answer into the session; to be called once the answer is whole.

        A store that stays away for longer than ``PATIENCE_S`` is logged: the answer is worth more than the
        memory of it.

        Raises:
            JobInterrupted: The job has been cancelled or has run out of time meanwhile.
        """
        if self._write is not None:
            self._write(answer)


def recall(prompt: str) -> Memory:
    """Look up what the current job's session remembers.

    Args:
        prompt: The question.

    Raises:
        JobFailed: The store went away and stayed away; worth another attempt.
        JobInterrupted: The job has been cancelled or has run out of time meanwhile.
    """
    context = current_job()
    session_id = context.job.session_id
    if session_id is None:
        return Memory()
    if context.worker_id == IN_PROCESS:
        context.log(
            f"3ox: session {session_id!r} is in the store, which is away: this is answered without it.",
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
    """Give as much of a conversation's end as fits, whole turns only.

    Args:
        kept: Its messages, oldest first.
        limit_tokens: Bound on their length, by ``count_tokens``. If not even the last turn fits, its
            beginnings do.
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
    """Estimate how many tokens a message has; exact figures need the model's own vocabulary."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE


def _cut_turn(turn: list[SessionMessage], limit_tokens: int) -> list[SessionMessage]:
    """Give a turn whose texts are cut to an equal share of the limit; nothing if that is too little."""
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
    """A session as the current job sees it.

    Args:
        context: Of the job.
        loaded: Settings of this process.
        session_id: Which session.
    """

    def __init__(self, context: JobContext, loaded: LoadedSettings, session_id: str) -> None:
        self._context = context
        self._settings = loaded.settings
        self._session_id = session_id
        self._scripts = bridge_scripts(loaded)
        self._sessions = Sessions(self._scripts.store, loaded.settings.key_prefix)

    def read(self) -> list[SessionMessage]:
        found = self._look_up(lambda: self._sessions.messages(self._session_id))
        # What an attempt of this very job has left, whose worker died before it could settle.
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
        said = SessionMessage(job_id=job_id, role="assistant", at=utc_now(), text=cut_text(answer))

        def act() -> bool:
            return remember(
                self._scripts,
                self._session_id,
                question,
                said,
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
                f"the session {self._session_id!r} cannot be read: {error.message}", remedy=error.remedy
            ) from error


def _patiently(context: JobContext, act: Callable[[], T]) -> T:
    """Try until the store answers.

    Raises:
        StoreUnreachable: It did not within ``PATIENCE_S``.
        JobInterrupted: The job is to stop.
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
