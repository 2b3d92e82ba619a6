"""Telegram groups that have become supergroups, and thereby got another id.

Telegram reports a migration in a message of each of the two chats, and in the error of every call for the old
one. The store keeps the pairs, so that the bot and all workers know them: a supergroup that replaces an
allowed group stays allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from middleware.job.keys import Keys
from ops.logs import get_logger
from ops.store.client import Store

#: A chat migrates once; the limit only keeps the table small.
MIGRATIONS_MAX = 1000
_STEPS_MAX = 8
#: Parts of Telegram's errors for a topic that has been deleted or closed, in lower case.
TOPIC_GONE = ("message thread not found", "topic_deleted", "topic_closed", "topic_id_invalid")

log = get_logger(__name__)


def bot_id_of(token: str) -> str:
    """Return the bot's id, the first part of its token; for another form of token, a hash of it."""
    number = token.partition(":")[0]
    return number if number.isdigit() else hashlib.sha256(token.encode()).hexdigest()[:12]


def current_chat(chat_id: int, migrations: Mapping[int, int]) -> int:
    """Return the id that a chat has now.

    Args:
        chat_id: An id that it has or had.
        migrations: Former id to later id.
    """
    for _ in range(_STEPS_MAX):
        if chat_id not in migrations:
            break
        chat_id = migrations[chat_id]
    return chat_id


def is_among(chat_id: int, named: Iterable[int], migrations: Mapping[int, int]) -> bool:
    """Return whether a chat is named, with its present or a former id.

    Args:
        chat_id: The chat.
        named: Ids of chats in the settings.
        migrations: Former id to later id.
    """
    ids = frozenset(named)
    return chat_id in ids or chat_id in {current_chat(each, migrations) for each in ids}


class ChatMigrations:
    """The migrations of the chats of one bot, in the store.

    Args:
        store: The bridge's store.
        keys: Names of its keys.
        bot_id: The bot's id.
    """

    def __init__(self, store: Store, keys: Keys, bot_id: str) -> None:
        self._store = store
        self._key = keys.telegram(bot_id, "migrated")

    def read(self) -> dict[int, int]:
        """Return all migrations, former id to later id.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        flat = self._store.call("HGETALL", self._key)
        return {int(flat[at]): int(flat[at + 1]) for at in range(0, len(flat), 2)}

    def record(self, former: int, later: int) -> None:
        """Record a migration; may be repeated.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        known = self.read()
        if len(known) < MIGRATIONS_MAX and known.get(former) != later:
            self._store.call("HSET", self._key, former, later)
            log.warning(
                "telegram.chat_migrated",
                chat_id=former,
                new_chat_id=later,
                remedy="Its permission has moved along; write the new id into telegram_allow.",
            )
