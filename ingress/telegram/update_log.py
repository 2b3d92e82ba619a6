"""The log of updates: which have been started, which are handled, which replies are pending.

It is kept in the store, so that every update is handled once, whatever is killed at whatever time. While the
store is unavailable, entries are written to files and copied to the store later by ``synchronize``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hiredis
import msgspec

from ingress.telegram.pending_reply import PendingReply, decode_reply
from middleware.job.keys import Keys
from ops.errors import SpoolFull, StoreError, StoreUnreachable
from ops.files import write_durably
from ops.logs import get_logger
from ops.store.client import Store
from ops.store.resp import Argument, Reply, as_error

#: Telegram repeats an update for 24 hours (https://core.telegram.org/bots/api#getting-updates); twice that.
HANDLED_TTL_S = 172_800.0
#: Limit for the number of remembered update ids; the oldest are removed.
HANDLED_MAX = 200_000
_RECENT_MAX = 10_000
#: Limit for the number of files while the store is unavailable.
FILES_MAX = 10_000
_SUFFIX = ".json"

log = get_logger(__name__)


class UpdateStatus(NamedTuple):
    """What the log knows of an update.

    Attributes:
        handled: Whether it has been handled before.
        attempts: How often it has been started, this time included.
    """

    handled: bool
    attempts: int


class ReplyFiles:
    """Log entries in files ``UPDATE_ID.json`` of a folder.

    Args:
        folder: Created with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = {int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()}

    def __contains__(self, update_id: int) -> bool:
        return update_id in self._ids

    def __bool__(self) -> bool:
        return bool(self._ids)

    def write(self, reply: PendingReply) -> None:
        """Write or replace the file of a reply; it is on disk when this returns.

        Raises:
            SpoolFull: The folder cannot be written, or holds 10,000 files.
        """
        if reply.update_id not in self._ids and len(self._ids) >= FILES_MAX:
            raise SpoolFull(
                f"The folder {self._folder} holds {FILES_MAX} replies.", remedy="Make the store available."
            )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(reply.update_id), reply.encode())
        except OSError as error:
            raise SpoolFull(
                f"The folder {self._folder} cannot be written: {error.strerror}.",
                remedy="Free disk space, or correct the folder's mode.",
            ) from error
        self._ids.add(reply.update_id)

    def remove(self, update_id: int) -> None:
        """Remove the file of an update, if there is one."""
        if update_id in self._ids:
            self._path(update_id).unlink(missing_ok=True)
            self._ids.discard(update_id)

    def all(self) -> list[PendingReply]:
        """Return the replies of all files, by update id."""
        return [reply for reply in map(self._read, sorted(self._ids)) if reply is not None]

    def _read(self, update_id: int) -> PendingReply | None:
        """Return the reply of a file; None if it is missing or not valid, in which case it is renamed."""
        path = self._path(update_id)
        try:
            return decode_reply(path.read_bytes())
        except FileNotFoundError:
            self._ids.discard(update_id)
        except StoreError as error:
            self._ids.discard(update_id)
            path.replace(path.with_suffix(".refused"))
            log.warning("telegram.reply_file_invalid", update_id=update_id, reason=str(error))
        return None

    def _path(self, update_id: int) -> Path:
        return self._folder / f"{update_id}{_SUFFIX}"


class UpdateLog:
    """The log of one bot; thread-safe.

    Args:
        store: The bridge's store.
        keys: Names of its keys.
        bot_id: The bot's id.
        files: Used while the store is unavailable.
        unavailable: Set while the store is known to be unavailable; shared by the threads of this process, so
            that only one call waits for its timeout.
    """

    def __init__(
        self, store: Store, keys: Keys, bot_id: str, files: ReplyFiles, unavailable: threading.Event
    ) -> None:
        self._store = store
        self._handled = keys.telegram(bot_id, "taken")
        self._attempts = keys.telegram(bot_id, "tries")
        self._pending = keys.telegram(bot_id, "owed")
        self._files = files
        self._unavailable = unavailable
        self._lock = threading.Lock()
        self._recent: deque[int] = deque(maxlen=_RECENT_MAX)
        #: Attempts at the current update, counted while the store is unavailable.
        self._local_attempts: dict[int, int] = {}

    def start(self, update_id: int) -> UpdateStatus:
        """Record that an update is about to be handled; return what is known of it."""
        with self._lock:
            if update_id in self._files or update_id in self._recent:
                return UpdateStatus(handled=True, attempts=0)
            if not self._unavailable.is_set():
                try:
                    known, attempts = self._run(
                        [("ZSCORE", self._handled, update_id), ("HINCRBY", self._attempts, update_id, 1)]
                    )
                except StoreUnreachable as error:
                    self.report_outage(error)
                else:
                    if known is not None:
                        self._run([("HDEL", self._attempts, update_id)])
                    return UpdateStatus(handled=known is not None, attempts=attempts)
            attempts = self._local_attempts.get(update_id, 0) + 1
            self._local_attempts = {update_id: attempts}
            return UpdateStatus(handled=False, attempts=attempts)

    def finish(self, update_id: int, reply: PendingReply | None) -> None:
        """Record in one step that an update has been handled and which reply is pending.

        Args:
            update_id: The update.
            reply: The reply to deliver, or None.

        Raises:
            SpoolFull: The store is unavailable and the file cannot be written.
        """
        with self._lock:
            self._write(PendingReply(update_id=update_id, chat_id=0, done=True) if reply is None else reply)
            self._recent.append(update_id)

    def save(self, reply: PendingReply) -> None:
        """Record the progress of a reply whose update has been handled.

        Raises:
            SpoolFull: The store is unavailable and the file cannot be written.
        """
        with self._lock:
            self._write(reply)

    def settle(self, reply: PendingReply) -> None:
        """Record that a reply has been delivered.

        Raises:
            SpoolFull: The store is unavailable and the file cannot be written.
        """
        self.save(msgspec.structs.replace(reply, done=True))

    def pending(self) -> list[PendingReply]:
        """Return all pending replies, by update id."""
        found: dict[int, PendingReply] = {}
        with self._lock:
            if not self._unavailable.is_set():
                try:
                    rows = self._store.call("HGETALL", self._pending)
                except StoreUnreachable as error:
                    self.report_outage(error)
                else:
                    found = self._decoded(rows)
            found.update({reply.update_id: reply for reply in self._files.all()})
        return [found[update_id] for update_id in sorted(found) if not found[update_id].done]

    @property
    def needs_synchronization(self) -> bool:
        """Whether the store is unavailable or lacks entries that are in files."""
        return self._unavailable.is_set() or bool(self._files)

    def synchronize(self) -> None:
        """Copy entries from files to the store, if it is available again.

        Raises:
            StoreUnreachable: The store is still unavailable.
        """
        # Outside the lock: with a store that does not answer, only this call waits for the timeout.
        self._store.call("PING")
        with self._lock:
            for reply in self._files.all():
                self._run(self._commands(reply))
                self._files.remove(reply.update_id)
        self._unavailable.clear()

    def report_outage(self, error: StoreUnreachable) -> None:
        """Record that the store is unavailable; the first of a series is logged."""
        if not self._unavailable.is_set():
            log.warning("telegram.store_unavailable", reason=str(error))
        self._unavailable.set()

    def _write(self, reply: PendingReply) -> None:
        if not self._unavailable.is_set():
            try:
                self._run(self._commands(reply))
            except StoreUnreachable as error:
                self.report_outage(error)
            else:
                self._files.remove(reply.update_id)
                return
        self._files.write(reply)

    def _commands(self, reply: PendingReply) -> list[tuple[Argument, ...]]:
        now_s = time.time()
        entry: tuple[Argument, ...] = ("HSET", self._pending, reply.update_id, reply.encode())
        if reply.done:
            entry = ("HDEL", self._pending, reply.update_id)
        return [
            ("MULTI",),
            ("ZADD", self._handled, "NX", round(now_s * 1000), reply.update_id),
            ("HDEL", self._attempts, reply.update_id),
            entry,
            ("ZREMRANGEBYSCORE", self._handled, "-inf", round((now_s - HANDLED_TTL_S) * 1000)),
            ("ZREMRANGEBYRANK", self._handled, 0, -HANDLED_MAX - 1),
            ("EXEC",),
        ]

    def _run(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        replies = self._store.pipeline(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return replies

    def _decoded(self, rows: list[bytes]) -> dict[int, PendingReply]:
        found = {}
        for at in range(0, len(rows), 2):
            try:
                found[int(rows[at])] = decode_reply(rows[at + 1])
            except StoreError as error:
                log.warning("telegram.pending_reply_invalid", update_id=int(rows[at]), reason=str(error))
                self._run([("HDEL", self._pending, rows[at])])
        return found
