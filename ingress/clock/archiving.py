"""Copies ended jobs to the history, and deletes from it what is past its retention."""

from __future__ import annotations

from ingress.clock.leader_loop import LeaderLoop
from ingress.core.daemon import Daemon
from middleware.archive.archivist import BATCH, Archivist
from middleware.archive.history import History
from middleware.broker.leadership import Leadership, Term, steady_s
from ops.errors import HistoryBroken
from ops.logs import get_logger

#: Pause when a round found less than a full batch.
_INTERVAL_S = 0.5
_EXPIRY_INTERVAL_S = 60.0
#: Pause between two batches of deletions, in which other processes can write to the database.
_YIELD_S = 0.01

log = get_logger(__name__)


class ArchiveLoop(LeaderLoop):
    """Writes the history while this process leads; one writer at a time."""

    name = "archiving"
    faults = (HistoryBroken,)
    fault_event = "history.not_written"

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        super().__init__(daemon, leadership)
        self._history: History | None = None
        self._archivist: Archivist | None = None
        self._expiry_due_s = steady_s() + _INTERVAL_S

    def work(self, term: Term) -> None:
        """Archive a batch of ended jobs; once a minute delete old ones."""
        del term  # needs no fence: the database belongs to this workspace
        archivist = self._open()
        written = archivist.archive()
        if self._expiry_due_s <= steady_s():
            self._expire(archivist)
        if written < BATCH:
            self.daemon.stopping.wait(_INTERVAL_S)

    def close(self) -> None:
        """Close the database."""
        history, self._history, self._archivist = self._history, None, None
        if history is not None:
            history.close()

    def _open(self) -> Archivist:
        """Return the archivist, which remembers what it has looked at for as long as the database is open."""
        if self._history is None or self._archivist is None:
            settings = self.daemon.loaded.settings
            self._history = History(self.daemon.loaded.workspace.history_db, writable=True)
            self._archivist = Archivist(
                self.daemon.bridge.reader,
                self._history,
                retention_s=settings.history_retention_s,
                rows_max=settings.history_max,
                output_max_bytes=settings.history_output_max_bytes,
            )
        return self._archivist

    def _expire(self, archivist: Archivist) -> None:
        self._expiry_due_s = steady_s() + _EXPIRY_INTERVAL_S
        deleted = 0
        while batch := archivist.expire():
            deleted += batch
            if self.daemon.stopping.wait(_YIELD_S):
                break
        if deleted:
            log.info("history.expired", jobs=deleted)
