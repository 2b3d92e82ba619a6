"""A bridge whose ledger or history the test writes itself, without a scheduler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.core.ledger_proofs import key_ring, verify_ledger
from ingress.dispatch import Bridge, connect
from middleware.archive.archivist import Archivist
from middleware.archive.history import History
from middleware.archive.ledger import Ledger, day_files
from middleware.archive.ledger_line import LedgerLine, read_line
from middleware.archive.sealer import Sealer
from middleware.archive.verification import Verdict
from middleware.broker.leadership import Leadership, Term
from middleware.broker.ledger_progress import LedgerProgress
from ops.settings.load import LoadedSettings, load_settings
from tests.support import RunningValkey


class Scribe:
    """A leader that seals when the test calls it.

    Args:
        bridge: Whose jobs.
        name: Of the leader.
    """

    def __init__(self, bridge: Bridge, name: str = "scribe") -> None:
        self.bridge = bridge
        self.folder = bridge.loaded.workspace.ledger_dir
        self.leadership = Leadership(bridge.scripts, name, lease_s=60.0)
        self.ledger = Ledger(self.folder, key_ring(bridge.loaded))
        self.sealing = LedgerProgress(bridge.scripts)
        self.now_s = time.time()
        self.sealer = Sealer(self.sealing, self.ledger, clock=lambda: self.now_s)
        term = self.leadership.claim().term
        assert term is not None
        self.term: Term = term

    def seal(self) -> int:
        """Seal everything; return how many rounds that took."""
        rounds = 0
        while self.sealer.seal(self.term):
            rounds += 1
        return rounds

    def successor(self, name: str) -> Scribe:
        """Return another leader that takes over, as after a crash: the lease has ended, nothing was noted."""
        self.bridge.store.call("HSET", f"{self.bridge.scripts.prefix}lead", "until", 0)
        return Scribe(self.bridge, name)

    @property
    def file(self) -> Path:
        """The last day's file."""
        return day_files(self.folder)[-1]

    def lines(self) -> list[LedgerLine]:
        """Return all lines."""
        return [read_line(raw) for file in day_files(self.folder) for raw in file.read_bytes().splitlines()]

    def transitions(self) -> list[tuple[str, int]]:
        """Return job id and index of each sealed transition, sorted."""
        return sorted((line.job_id, line.index) for line in self.lines())

    def verify(self, day: str | None = None) -> Verdict:
        """Verify the ledger."""
        return verify_ledger(self.bridge, day=day)

    def key(self, name: str) -> str:
        """Return the name of a key in the store."""
        return f"{self.bridge.scripts.prefix}{name}"


@pytest.fixture
def own(loaded: LoadedSettings) -> Bridge:
    """A bridge of the test's own, without workers."""
    return connect(loaded)


@pytest.fixture
def scribe(own: Bridge) -> Scribe:
    """The leader that seals this bridge's ledger."""
    return Scribe(own)


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge on a store of its own."""
    loaded = load_settings(tmp_path, environ={})
    loaded.workspace.create()
    store = RunningValkey(loaded)
    store.start()
    yield Bridge(loaded)
    store.stop()


@pytest.fixture
def history(bridge: Bridge) -> Iterator[History]:
    """The history of this bridge."""
    made = History(bridge.loaded.workspace.history_db, writable=True)
    yield made
    made.close()


@pytest.fixture
def archivist(bridge: Bridge, history: History) -> Archivist:
    """The archivist that writes this history."""
    return Archivist(bridge.reader, history, retention_s=3600, rows_max=1000, output_max_bytes=1000)
