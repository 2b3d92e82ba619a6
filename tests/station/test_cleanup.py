"""What the station removes: empty folders, old journals, abandoned drafts."""

from __future__ import annotations

import os

from ingress.station.cleanup import EmptyFolders, remove_old_days, remove_old_drafts
from ingress.station.scanner import Scanner
from ops.settings.station import StationRule, StationSettings
from ops.workspace import Workspace
from tests.station.parts import DEFAULTS


def test_emptied_folders_go_and_those_dropped_empty_are_claimed(workspace: Workspace) -> None:
    """Inner ones first, in one pass; folders that a rule names, that hold something or are new stay."""
    inbox = workspace.inbox
    for name in ("old/deep/er", "papers", "full", "new", "never/filled"):
        (inbox / name).mkdir(parents=True)
    (inbox / "old/deep/er/file").write_text("x")
    (inbox / "full" / ".hidden").write_text("x")
    settings = StationSettings(rules=[StationRule(match="Papers/*")], empty_folder_s=60.0)
    memory = workspace.run_dir / "station.folders"
    memory.parent.mkdir(parents=True, exist_ok=True)
    empty = EmptyFolders(settings, memory)
    scanner = Scanner(inbox, settings)
    assert empty.take(scanner.scan().subfolders) == []
    (inbox / "old/deep/er/file").unlink()
    for name in ("old/deep/er", "old/deep", "old", "papers", "full", "never/filled", "never"):
        os.utime(inbox / name, (1, 1))
    # Another process knows what this one has seen.
    dropped = EmptyFolders(settings, memory).take(scanner.scan().subfolders)
    assert [item.relative for item in dropped] == ["never/filled"]
    assert sorted(path.name for path in inbox.iterdir()) == ["full", "never", "new", "papers"]
    kept = EmptyFolders(StationSettings(empty_folder_s=0.0), memory)
    assert kept.take(Scanner(inbox, DEFAULTS).scan().subfolders) == []


def test_journals_of_old_days_are_forgotten(workspace: Workspace) -> None:
    """Days past the retention are removed, and nothing else in the folder."""
    for name in ("2020-01-01", "2999-01-01", "lock"):
        (workspace.undo_dir / name).mkdir(parents=True)
    assert remove_old_days(workspace.undo_dir, keep_s=60.0) == ["2020-01-01"]
    assert sorted(path.name for path in workspace.undo_dir.iterdir()) == ["2999-01-01", "lock"]
    assert remove_old_days(workspace.home / "missing", keep_s=1.0) == []


def test_drafts_of_the_dead_are_removed(workspace: Workspace) -> None:
    """Drafts that nothing has written to for a day; partial downloads of browsers stay."""
    old = (".upload-0123456789abcdef.part", ".3ox-drop-01m80jd6vsb3xqdhsbzr.note.part", "film.part")
    for name in (*old, ".upload-fedcba9876543210.part"):
        (workspace.inbox / name).write_text("x")
    for name in old:
        os.utime(workspace.inbox / name, (1.0, 1.0))
    assert sorted(remove_old_drafts(workspace.inbox)) == sorted(old[:2])
    assert (workspace.inbox / "film.part").exists()
    assert (workspace.inbox / ".upload-fedcba9876543210.part").exists()
