"""A tree with everything that people drop: every entry is accounted for. See also ``tree_of_5000``."""

from __future__ import annotations

from pathlib import Path

from tests.station.dropped_tree import account_for, build_tree
from tests.station.running import RunningStation
from tests.support import eventually


def test_every_entry_of_a_tree_is_accounted_for(station: RunningStation, tmp_path: Path) -> None:
    """F1 to F5: 200 entries with duplicates, empty files, links, odd names, dropped at once."""
    entries = build_tree(tmp_path / "source", files=200, folders=14)
    (tmp_path / "source").rename(station.inbox / "tree")
    ingested = sum(entry.fate == "ingested" for entry in entries)
    eventually(lambda: station.bridge.reader.summary()["completed"] >= ingested, 60.0, every_s=0.1)
    eventually(lambda: not station.claims(), 20.0, every_s=0.05)
    account = account_for(station.bridge, "tree", entries)
    assert account.problems == []
    assert account.counts.total() == len(entries)
