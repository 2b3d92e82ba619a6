"""Sessions: the last messages of a conversation, questions and answers.

``session:ID`` is a list of messages, oldest first, each a JSON object. ``sessionfacts:ID`` has the number of
messages so far and the times of the first and the last. ``remember.lua`` writes both.
"""

from __future__ import annotations

from typing import Literal

import hiredis
import msgspec
from msgspec import Struct

from middleware.job.keys import Keys
from middleware.job.records import utc
from ops.errors import SessionNotFound
from ops.store.client import Store
from ops.store.resp import Reply, as_error

#: Maximum number of sessions; those without messages for the longest time are removed first.
SESSIONS_MAX = 10_000
#: Maximum length of a kept message in characters; the job's result has the whole answer.
TEXT_MAX = 16_000
_CUT = " [...]"
_LIST_MAX = 1000


class SessionMessage(Struct, frozen=True, kw_only=True):
    """One message of a session.

    Attributes:
        job_id: The job that it belongs to.
        role: ``user`` for a question, ``assistant`` for an answer.
        at: Time, RFC 3339.
        text: The message; at most ``TEXT_MAX`` characters.
        source: The interface that the question was submitted through.
    """

    job_id: str
    role: Literal["user", "assistant"]
    at: str
    text: str
    source: str = ""


class SessionFacts(Struct, frozen=True, kw_only=True):
    """Size and times of a session.

    Attributes:
        session_id: Its name.
        messages: Number of messages so far, dropped ones included.
        kept: Number of messages that are kept.
        began_at: Time of its first question, RFC 3339.
        last_at: Time of its last message, RFC 3339.
        expires_s: Seconds until it is removed, unless another message comes.
    """

    session_id: str
    messages: int
    kept: int
    began_at: str
    last_at: str
    expires_s: float


def cut_text(text: str, limit: int = TEXT_MAX) -> str:
    """Return the text, shortened to ``limit`` characters with a mark at its end if it is longer."""
    return text if len(text) <= limit else text[: max(0, limit - len(_CUT))] + _CUT


class Sessions:
    """Reads and clears the sessions of one bridge.

    Args:
        store: The store that has the sessions.
        prefix: Prefix of all key names.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._keys = Keys(prefix)

    def messages(self, session_id: str) -> list[SessionMessage]:
        """Return the kept messages of a session, oldest first; none if it does not exist.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        rows = self._store.call("LRANGE", self._keys.session(session_id), 0, -1)
        return [msgspec.json.decode(row, type=SessionMessage) for row in rows]

    def facts(self, session_id: str) -> SessionFacts:
        """Return size and times of a session.

        Raises:
            SessionNotFound: It does not exist, or no longer.
            StoreUnreachable: The store is unavailable.
        """
        found = self._facts([session_id])
        if not found:
            raise _not_found(session_id)
        return found[0]

    def latest(self, limit: int = _LIST_MAX) -> list[SessionFacts]:
        """Return the sessions, the one with the latest message first.

        Args:
            limit: Maximum number of sessions, up to 1000.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        names = self._store.call("ZREVRANGE", self._keys.sessions, 0, min(limit, _LIST_MAX) - 1)
        return self._facts([name.decode() for name in names])

    def clear(self, session_id: str) -> int:
        """Remove a session; return how many messages it had.

        Raises:
            SessionNotFound: It does not exist.
            StoreUnreachable: The store is unavailable; repeating the call has no further effect.
        """
        key = self._keys.session(session_id)
        replies = self._read(
            [
                ("MULTI",),
                ("LLEN", key),
                ("DEL", key, self._keys.session_facts(session_id)),
                ("ZREM", self._keys.sessions, session_id),
                ("EXEC",),
            ],
        )
        count, existed, listed = replies[-1]
        if not existed and not listed:
            raise _not_found(session_id)
        return int(count)

    def _facts(self, names: list[str]) -> list[SessionFacts]:
        """Return the facts of those sessions that exist."""
        if not names:
            return []
        commands: list[tuple[str, ...]] = []
        for name in names:
            commands += [
                ("HMGET", self._keys.session_facts(name), "messages", "began", "last"),
                ("LLEN", self._keys.session(name)),
                ("PTTL", self._keys.session(name)),
            ]
        replies = self._read(commands)
        found = []
        for at, name in enumerate(names):
            (messages, began, last), kept, left_ms = replies[3 * at : 3 * at + 3]
            if kept == 0 or messages is None:
                continue
            found.append(
                SessionFacts(
                    session_id=name,
                    messages=int(messages),
                    kept=kept,
                    began_at=str(utc(began)),
                    last_at=str(utc(last)),
                    expires_s=round(max(0, left_ms) / 1000, 3),
                )
            )
        return found

    def _read(self, commands: list[tuple[str, ...]]) -> list[Reply]:
        replies = self._store.pipeline(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return replies


def _not_found(session_id: str) -> SessionNotFound:
    return SessionNotFound(f"Session {session_id!r} not found.", remedy="'3ox sessions' lists all sessions.")
