"""The book of updates: which have been begun, which are taken, what reply is owed to which.

It is kept in the store, so that an update is taken once whatever is killed when. While the store is away it
goes on on disk (``ingress.telegram.update_log``) and is brought up to date by ``mend``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import hiredis
import msgspec

from ingress.telegram.pending_reply import Owed, decode_owed
from middleware.job.keys import Keys
from ops.errors import SpoolFull, StoreError, StoreUnreachable
from ops.files import write_durably
from ops.logs import get_logger
from ops.store.client import Store
from ops.store.resp import Argument, Reply, as_error

#: Telegram keeps an update for 24 hours, see https://core.telegram.org/bots/api#getting-updates; twice that.
TAKEN_S = 172_800.0
#: And no more than so many ids, the latest.
TAKEN_MAX = 200_000
_RECENT_MAX = 10_000

log = get_logger(__name__)


class Turn(NamedTuple):
    """What the book says of an update.

    Attributes:
        taken: It has been handled before.
        tries: How often it has been begun, this time included.
    """

    taken: bool
    tries: int


class Book:
    """The book of one bot; thread-safe.

    Args:
        store: Where it is kept.
        keys: Names of its keys.
        bot: The bot's number.
        shelf: Where it goes on while the store is away.
        on_away: Called when the store is found to be away.
    """

    def __init__(self, store: Store, keys: Keys, bot: str, shelf: Shelf, on_away: Callable[[], None]) -> None:
        self._store = store
        self._taken = keys.telegram(bot, "taken")
        self._tries = keys.telegram(bot, "tries")
        self._owed = keys.telegram(bot, "owed")
        self._shelf = shelf
        self._on_away = on_away
        self._lock = threading.Lock()
        self._recent: deque[int] = deque(maxlen=_RECENT_MAX)
        self._begun: dict[int, int] = {}
        self.away = False

    def begin(self, update_id: int) -> Turn:
        """Write down that an update is begun; to be called before anything is done about it."""
        with self._lock:
            if update_id in self._shelf or update_id in self._recent:
                return Turn(taken=True, tries=0)
            if not self.away:
                try:
                    known, tries = self._run(
                        [("ZSCORE", self._taken, update_id), ("HINCRBY", self._tries, update_id, 1)]
                    )
                except StoreUnreachable as error:
                    self._lose(error)
                else:
                    if known is not None:
                        self._run([("HDEL", self._tries, update_id)])
                    return Turn(taken=known is not None, tries=tries)
            tries = self._begun.get(update_id, 0) + 1
            self._begun = {update_id: tries}
            return Turn(taken=False, tries=tries)

    def commit(self, update_id: int, owed: Owed | None) -> None:
        """Write down that an update is taken, and the reply that is owed to it; both or none.

        Args:
            update_id: Which update.
            owed: None if it gets no reply.

        Raises:
            SpoolFull: The store is away and the disk is full.
        """
        with self._lock:
            entry = Owed(update_id=update_id, chat_id=0, done=True) if owed is None else owed
            self._write(entry)
            self._recent.append(update_id)

    def save(self, owed: Owed) -> None:
        """Write down how far a reply has come; its update is taken already.

        Raises:
            SpoolFull: The store is away and the disk is full.
        """
        with self._lock:
            self._write(owed)

    def settle(self, owed: Owed) -> None:
        """Write down that a reply has been given.

        Raises:
            SpoolFull: The store is away and the disk is full.
        """
        with self._lock:
            self._write(msgspec.structs.replace(owed, done=True))

    def pending(self) -> list[Owed]:
        """Give every reply that is owed, those of the oldest updates first."""
        found: dict[int, Owed] = {}
        with self._lock:
            if not self.away:
                try:
                    rows = self._store.call("HGETALL", self._owed)
                except StoreUnreachable as error:
                    self._lose(error)
                else:
                    found = self._decoded(rows)
            found.update({owed.update_id: owed for owed in self._shelf.all()})
        return [found[update_id] for update_id in sorted(found) if not found[update_id].done]

    def mend(self) -> None:
        """Bring the store up to date with the shelf, if it is back.

        Raises:
            StoreUnreachable: It is not.
        """
        # A paused store keeps this waiting until its time-out; nobody else has to wait along.
        self._store.call("PING")
        with self._lock:
            for owed in self._shelf.all():
                self._run(self._commands(owed))
                self._shelf.remove(owed.update_id)
            if self.away:
                log.warning("telegram.store_back")
            self.away = False

    def _write(self, owed: Owed) -> None:
        if not self.away:
            try:
                self._run(self._commands(owed))
            except StoreUnreachable as error:
                self._lose(error)
            else:
                self._shelf.remove(owed.update_id)
                return
        self._shelf.put(owed)

    def _commands(self, owed: Owed) -> list[tuple[Argument, ...]]:
        now_s = time.time()
        reply: tuple[Argument, ...] = ("HSET", self._owed, owed.update_id, owed.encode())
        if owed.done:
            reply = ("HDEL", self._owed, owed.update_id)
        return [
            ("MULTI",),
            ("ZADD", self._taken, "NX", round(now_s * 1000), owed.update_id),
            ("HDEL", self._tries, owed.update_id),
            reply,
            ("ZREMRANGEBYSCORE", self._taken, "-inf", round((now_s - TAKEN_S) * 1000)),
            ("ZREMRANGEBYRANK", self._taken, 0, -TAKEN_MAX - 1),
            ("EXEC",),
        ]

    def _run(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        replies = self._store.pipeline(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return replies

    def lose(self, error: StoreUnreachable) -> None:
        """Note that the store is away, as somebody else has found out."""
        with self._lock:
            self._lose(error)

    def _lose(self, error: StoreUnreachable) -> None:
        if not self.away:
            log.warning("telegram.store_away", reason=str(error))
        self.away = True
        self._on_away()

    def _decoded(self, rows: list[bytes]) -> dict[int, Owed]:
        found = {}
        for at in range(0, len(rows), 2):
            try:
                found[int(rows[at])] = decode_owed(rows[at + 1])
            except StoreError as error:
                log.warning("telegram.owed_refused", update_id=int(rows[at]), reason=str(error))
                self._run([("HDEL", self._owed, rows[at])])
        return found


#: What is owed is bounded too, see ``ingress.telegram.replies``; what is given stays until the store is back.
FILES_MAX = 10_000
_SUFFIX = ".json"


class Shelf:
    """A folder of files ``UPDATE_ID.json``.

    Args:
        folder: Where they are; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = {int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()}

    def __contains__(self, update_id: int) -> bool:
        return update_id in self._ids

    def __bool__(self) -> bool:
        return bool(self._ids)

    def put(self, owed: Owed) -> None:
        """Write or replace a file; it is on disk when this returns.

        Raises:
            SpoolFull: The disk is full, or there are 10,000 files.
        """
        if owed.update_id not in self._ids and len(self._ids) >= FILES_MAX:
            raise SpoolFull(
                f"the folder {self._folder} holds {FILES_MAX} replies.", remedy="Bring the store back."
            )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(owed.update_id), owed.encode())
        except OSError as error:
            raise SpoolFull(
                f"the folder {self._folder} takes nothing: {error.strerror}.",
                remedy="Free disk space, or correct the folder's mode.",
            ) from error
        self._ids.add(owed.update_id)

    def take(self, update_id: int) -> Owed | None:
        """Read a file; None if there is none. One that cannot be read is set aside."""
        path = self._path(update_id)
        try:
            return decode_owed(path.read_bytes())
        except FileNotFoundError:
            self._ids.discard(update_id)
        except StoreError as error:
            self._ids.discard(update_id)
            path.replace(path.with_suffix(".refused"))
            log.warning("telegram.shelf_refused", update_id=update_id, reason=str(error))
        return None

    def remove(self, update_id: int) -> None:
        """Remove a file, if it is there."""
        if update_id in self._ids:
            self._path(update_id).unlink(missing_ok=True)
            self._ids.discard(update_id)

    def all(self) -> list[Owed]:
        """Read all files, by update."""
        return [owed for owed in map(self.take, sorted(self._ids)) if owed is not None]

    def _path(self, update_id: int) -> Path:
        return self._folder / f"{update_id}{_SUFFIX}"
