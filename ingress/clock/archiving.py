"""Brings ended jobs into the history while this clock leads, and removes from it what is too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from middleware.archive.archivist import BATCH, Archivist
from middleware.archive.history import History
from middleware.broker.leadership import Leadership, steady_s
from middleware.broker.outage import Outage
from ops.errors import BridgeError, HistoryBroken
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.core.daemon import Daemon

#: Between two looks at what has ended.
_INTERVAL_S = 0.5
_EXPIRY_INTERVAL_S = 60.0

log = get_logger(__name__)


class ArchivingDuty:
    """Archives what is to be archived.

    Args:
        daemon: The clock.
        leadership: Tells whether we lead.
    """

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        self._daemon = daemon
        self._leadership = leadership
        self._outage = Outage()
        self._complained = False
        self._expiry_s = steady_s() + _INTERVAL_S

    def run(self) -> None:
        """Archive until the daemon stops."""
        stopping = self._daemon.stopping
        while not stopping.is_set():
            if self._leadership.term is None:
                stopping.wait(_INTERVAL_S)
                continue
            try:
                with History(self._daemon.loaded.workspace.history_db, writable=True) as history:
                    self._lead(self._archivist(history))
            except BridgeError as error:
                self._complain(error)
                stopping.wait(_INTERVAL_S)

    def _archivist(self, history: History) -> Archivist:
        settings = self._daemon.loaded.settings
        return Archivist(
            self._daemon.bridge.reader,
            history,
            retention_s=settings.history_retention_s,
            rows_max=settings.history_max,
            output_max_bytes=settings.history_output_max_bytes,
        )

    def _lead(self, archivist: Archivist) -> None:
        """Archive for as long as we lead."""
        stopping = self._daemon.stopping
        while self._leadership.term is not None and not stopping.is_set():
            written = archivist.archive()
            self._outage.end()
            self._complained = False
            if self._expiry_s <= steady_s():
                self._expire(archivist)
            if written < BATCH:
                stopping.wait(_INTERVAL_S)

    def _expire(self, archivist: Archivist) -> None:
        """Delete some at a time, and let others have the file in between."""
        self._expiry_s = steady_s() + _EXPIRY_INTERVAL_S
        deleted = 0
        while some := archivist.expire():
            deleted += some
            if self._daemon.stopping.wait(0.01):
                break
        if deleted:
            log.info("history.expired", jobs=deleted)

    def _complain(self, error: BridgeError) -> None:
        if not isinstance(error, HistoryBroken):
            self._outage.begin(error)
        elif not self._complained:
            self._complained = True
            log.error("history.not_written", reason=str(error))
