"""What the station removes: empty folders, old journals, abandoned drafts."""

from __future__ import annotations

import os

from ingress.station.cleanup import remove_empty_folders, remove_old_days, remove_old_drafts
from ingress.station.scanner import Scanner
from ops.settings.station import StationRule, StationSettings
from ops.workspace import Workspace
from tests.station.parts import IGNORE


def test_folders_that_stay_empty_go_except_those_of_rules(workspace: Workspace) -> None:
    """Folders that have been empty for long are removed, inner ones first; named or filled ones stay."""
    for name in ("old/deep", "papers", "full", "new"):
        (workspace.inbox / name).mkdir(parents=True)
    (workspace.inbox / "full" / ".part").write_text("x")
    for name in ("old/deep", "old", "papers", "full"):
        os.utime(workspace.inbox / name, (1, 1))
    settings = StationSettings(rules=[StationRule(match="Papers/*")], empty_folder_s=60.0)
    remove_empty_folders(Scanner(workspace.inbox, IGNORE), settings)
    os.utime(workspace.inbox / "old", (1, 1))
    remove_empty_folders(Scanner(workspace.inbox, IGNORE), settings)
    assert sorted(path.name for path in workspace.inbox.iterdir()) == ["full", "new", "papers"]


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
