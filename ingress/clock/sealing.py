"""Seals the receipts of ended jobs into the ledger, within about a second after each event."""

from __future__ import annotations

from ingress.clock.leader_loop import LeaderLoop
from ingress.core.daemon import Daemon
from ingress.core.ledger_proofs import key_ring
from middleware.archive.ledger import Ledger
from middleware.archive.sealer import BATCH, Sealer
from middleware.broker.leadership import Leadership, Term
from middleware.broker.ledger_progress import LedgerProgress
from ops.errors import LedgerBroken, SettingsError, StoreTimeout
from ops.store.resp import Connection

#: Events of this span share one flush to the disk.
_GATHER_S = 0.25
#: Longest wait for an event; one that arrived just before the wait is found by the next round.
_BLOCK_S = 1.0


class SealLoop(LeaderLoop):
    """Writes the ledger while this process leads; the term fences off a former leader."""

    name = "sealing"
    faults = (LedgerBroken, SettingsError)
    fault_event = "ledger.not_sealed"

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        super().__init__(daemon, leadership)
        ledger = Ledger(daemon.loaded.workspace.ledger_dir, key_ring(daemon.loaded))
        self._sealer = Sealer(LedgerProgress(daemon.bridge.scripts), ledger)
        self._connection: Connection | None = None

    def work(self, term: Term) -> None:
        """Seal a batch of receipts; after the last one wait for an event."""
        if self._connection is None:
            self._connection = self.daemon.bridge.store.connect()
        if self._sealer.seal(term) < BATCH:
            self._await_event(self._connection)
            self.daemon.stopping.wait(_GATHER_S)

    def close(self) -> None:
        """Close the connection on which events are awaited."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _await_event(self, connection: Connection) -> None:
        events = self.daemon.bridge.reader.keys.events
        connection.send([("XREAD", "COUNT", 1, "BLOCK", round(_BLOCK_S * 1000), "STREAMS", events, "$")])
        try:
            connection.read(_BLOCK_S + self.daemon.loaded.settings.store_timeout_s)
        except TimeoutError as error:
            raise StoreTimeout("The store did not answer in time.", remedy="Sealing is retried.") from error
