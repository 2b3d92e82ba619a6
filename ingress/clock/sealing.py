"""Seals the ledger while this clock leads: woken by what happens, a moment after it at the latest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingress.core.ledger_proofs import key_ring
from middleware.archive.ledger import Ledger
from middleware.archive.sealer import BATCH, Sealer
from middleware.broker.leadership import Leadership
from middleware.broker.outage import Outage
from middleware.broker.sealing import Sealing
from ops.errors import BridgeError, LeadershipLost, LedgerBroken, SettingsError, StoreSilent
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.core.daemon import Daemon
    from ops.store.resp import Connection

#: So many events are written with one flush to the disk: those of a quarter of a second.
_GATHER_S = 0.25
#: For so long an event is waited for; one that came while we were not looking is seen afterwards.
_BLOCK_S = 1.0
#: Between two tries while we follow, the store is away, or the disk takes nothing.
_PAUSE_S = 0.5

log = get_logger(__name__)


class SealingDuty:
    """Seals what is to be sealed.

    Args:
        daemon: The clock.
        leadership: Tells whether we lead, and under which number.
    """

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        self._daemon = daemon
        self._leadership = leadership
        ledger = Ledger(daemon.loaded.workspace.ledger_dir, key_ring(daemon.loaded))
        self._sealer = Sealer(Sealing(daemon.bridge.scripts), ledger)
        self._outage = Outage()
        self._complained = False

    def run(self) -> None:
        """Seal until the daemon stops."""
        stopping = self._daemon.stopping
        link: Connection | None = None
        while not stopping.is_set():
            term = self._leadership.term
            if term is None:
                stopping.wait(_PAUSE_S)
                continue
            try:
                if link is None:
                    link = self._daemon.bridge.store.connect()
                if self._sealer.seal(term) < BATCH:
                    self._await_event(link)
                    stopping.wait(_GATHER_S)
                self._outage.end()
                self._complained = False
            except BridgeError as error:
                self._complain(error)
                if link is not None:
                    link.close()
                    link = None
                stopping.wait(_PAUSE_S)
        if link is not None:
            link.close()

    def _await_event(self, link: Connection) -> None:
        events = self._daemon.bridge.reader.keys.events
        link.send([("XREAD", "COUNT", 1, "BLOCK", round(_BLOCK_S * 1000), "STREAMS", events, "$")])
        try:
            link.read(_BLOCK_S + self._daemon.loaded.settings.store_timeout_s)
        except TimeoutError as error:
            raise StoreSilent("the store did not answer in time.", remedy="It is tried again.") from error

    def _complain(self, error: BridgeError) -> None:
        if isinstance(error, LeadershipLost):
            log.warning("ledger.fenced", reason=str(error))
        elif not isinstance(error, LedgerBroken | SettingsError):
            self._outage.begin(error)
        elif not self._complained:
            self._complained = True
            log.error("ledger.not_sealed", reason=str(error))
