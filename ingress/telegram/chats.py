"""Which chats the bot answers, and which id each of them has now."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from middleware.telegram_chats import MIGRATIONS_MAX, ChatMigrations, current_chat, is_among
from ops.errors import StoreUnreachable
from ops.files import write_durably
from ops.logs import get_logger

log = get_logger(__name__)


class Chats:
    """The allowed chats and the admins of one bot; thread-safe.

    A migration is written to a file before it is recorded in the store, so that it is not lost while the
    store is unavailable: Telegram reports it once.

    Args:
        allowed: Ids of the chats in ``telegram_allow``.
        admins: Ids of the users and chats in ``telegram_admins``.
        migrations: Migrations in the store.
        file: File with the migrations that this process knows.
        unavailable: Set while the store is known to be unavailable.
    """

    def __init__(
        self,
        allowed: Iterable[int],
        admins: Iterable[int],
        migrations: ChatMigrations,
        file: Path,
        unavailable: threading.Event,
    ) -> None:
        self._allowed = frozenset(allowed)
        self._admins = frozenset(admins)
        self._migrations = migrations
        self._file = file
        self._unavailable = unavailable
        self._lock = threading.Lock()
        self._known = self._read_file()
        #: Migrations that the store may not have yet.
        self._unsaved = dict(self._known)

    def is_allowed(self, chat_id: int) -> bool:
        """Return whether the bot answers a chat."""
        return is_among(chat_id, self._allowed, self._known)

    def is_admin(self, *ids: int) -> bool:
        """Return whether one of these users and chats may approve jobs."""
        return any(is_among(each, self._admins, self._known) for each in ids)

    def admins(self) -> list[int]:
        """Return the users and chats that are asked for approvals, with their present ids."""
        return sorted({current_chat(each, self._known) for each in self._admins})

    def move(self, former: int, later: int) -> None:
        """Record that a chat has got another id; ignored for a chat that is neither allowed nor an admin.

        Args:
            former: Its former id.
            later: Its id from now on.
        """
        if former == later or not (self.is_allowed(former) or self.is_admin(former)):
            return
        with self._lock:
            if self._known.get(former) == later or len(self._known) >= MIGRATIONS_MAX:
                return
            self._known = {**self._known, former: later}
            self._unsaved[former] = later
            self._write_file()
        if not self._unavailable.is_set():
            try:
                self.synchronize()
            except StoreUnreachable as error:
                log.warning("telegram.migration_not_recorded", reason=str(error))

    def synchronize(self) -> None:
        """Record in the store what it lacks, and read what others have recorded.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        with self._lock:
            for former, later in self._unsaved.items():
                self._migrations.record(former, later)
            self._unsaved.clear()
            self._known = {**self._migrations.read(), **self._known}

    def _read_file(self) -> dict[int, int]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[int, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("telegram.migrations_unreadable", file=str(self._file), reason=str(error))
            return {}

    def _write_file(self) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._file, msgspec.json.encode(self._known))
        except OSError as error:
            log.warning("telegram.migrations_not_written", file=str(self._file), reason=str(error))
