"""Sessions: what was asked and answered in one conversation, the last messages of it.

``session:ID`` is a list of messages, oldest first, each a JSON object; an operator reads it with ``LRANGE``.
Beside it stand its facts: how many messages there have been and when. Written it is by ``remember.lua``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import hiredis
import msgspec
from msgspec import Struct

from middleware.job.keys import Keys
from middleware.job.records import utc
from ops.errors import SessionNotFound
from ops.store.resp import Reply, as_error

if TYPE_CHECKING:
    from ops.store.client import Store

#: More sessions than this are not kept: those that were silent longest go first.
SESSIONS_MAX = 10_000
#: Of a longer message the beginning is kept, in characters; the job's result has the whole answer.
TEXT_MAX = 16_000
_CUT = " [...]"
_LIST_MAX = 1000


class SessionMessage(Struct, frozen=True, kw_only=True):
    """One message of a session.

    Attributes:
        job_id: The job that it belongs to.
        role: ``user`` asked it, ``assistant`` answered it.
        at: When, RFC 3339.
        text: What was said; at most ``TEXT_MAX`` characters.
        source: The door through which the question came.
    """

    job_id: str
    role: Literal["user", "assistant"]
    at: str
    text: str
    source: str = ""


class SessionFacts(Struct, frozen=True, kw_only=True):
    """A session in numbers.

    Attributes:
        session_id: Its name.
        messages: How many messages there have been, dropped ones included.
        kept: How many there still are.
        began_at: When its first question was asked, RFC 3339.
        last_at: When its last message was written.
        expires_s: It is forgotten so many seconds from now, unless it goes on.
    """

    session_id: str
    messages: int
    kept: int
    began_at: str
    last_at: str
    expires_s: float


def cut_text(text: str, limit: int = TEXT_MAX) -> str:
    """Give a text of at most ``limit`` characters; a longer one's beginning, and a mark that it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - len(_CUT))] + _CUT


class Sessions:
    """Reads and clears the sessions of one bridge.

    Args:
        store: Where they are.
        prefix: Before all key names.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._keys = Keys(prefix)

    def messages(self, session_id: str) -> list[SessionMessage]:
        """Give the messages that are kept, oldest first; none if there is no such session.

        Raises:
            StoreUnreachable: The store is away.
        """
        rows = self._store.call("LRANGE", self._keys.session(session_id), 0, -1)
        return [msgspec.json.decode(row, type=SessionMessage) for row in rows]

    def facts(self, session_id: str) -> SessionFacts:
        """Give a session in numbers.

        Raises:
            SessionNotFound: There is none of this name, or not any more.
            StoreUnreachable: The store is away.
        """
        found = self._facts([session_id])
        if not found:
            raise SessionNotFound(
                f"there is no session {session_id!r}.", remedy="'3ox sessions' lists all sessions."
            )
        return found[0]

    def latest(self, limit: int = _LIST_MAX) -> list[SessionFacts]:
        """Give the sessions, the one with the latest message first.

        Args:
            limit: How many at most, up to 1000.

        Raises:
            StoreUnreachable: The store is away.
        """
        names = self._store.call("ZREVRANGE", self._keys.sessions, 0, min(limit, _LIST_MAX) - 1)
        return self._facts([name.decode() for name in names])

    def clear(self, session_id: str) -> int:
        """Forget a session.

        Returns:
            How many messages it had.

        Raises:
            SessionNotFound: There is none of this name.
            StoreUnreachable: The store is away; the same again does no harm.
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
            raise SessionNotFound(
                f"there is no session {session_id!r}.", remedy="'3ox sessions' lists all sessions."
            )
        return int(count)

    def _facts(self, names: list[str]) -> list[SessionFacts]:
        """Give the facts of those that there still are."""
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
