"""Scanning the drop folder: what is found, when a file is stable, how changes are noticed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ingress.core.drop_folder import AcceptedNames, drop
from ingress.station.claims import Claims
from ingress.station.scanner import Scanner
from ingress.station.stability import StabilityTracker, is_being_written
from ingress.station.watch import FolderWatcher, file_system_of, is_remote
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.station.parts import IGNORE, Clock
from tests.support import eventually


def test_a_file_is_settled_when_it_has_stood_still(workspace: Workspace) -> None:
    """A change of size, time or inode restarts the wait; the time of the next check is returned."""
    clock = Clock()
    stability = StabilityTracker(settle_s=1.0, note_wait_s=5.0, clock=clock)
    file = workspace.inbox / "a"

    def look() -> tuple[list[str], float | None]:
        ready, next_s = stability.settled(Scanner(workspace.inbox, IGNORE).scan().files)
        return [item.name for item in ready], next_s

    assert look() == ([], None)
    file.write_text("1")
    assert look() == ([], 1.0)
    clock.now_s += 0.75
    file.write_text("12")
    assert look() == ([], 1.0)
    clock.now_s += 0.75
    assert look() == ([], 0.25)
    clock.now_s += 0.25
    assert look() == (["a"], None)
    os.utime(file, (1, 1))
    assert look() == ([], 1.0)


def test_a_note_waits_longer_for_its_file(workspace: Workspace) -> None:
    """Alone it is claimed as a file after a longer wait; with its file it counts for stability."""
    clock = Clock()
    stability = StabilityTracker(settle_s=1.0, note_wait_s=5.0, clock=clock)
    inbox = Scanner(workspace.inbox, IGNORE)
    note = workspace.inbox / "a.note.txt"
    note.write_text("about")
    assert stability.settled(inbox.scan().files) == ([], 5.0)
    clock.now_s += 4.0
    assert stability.settled(inbox.scan().files)[0] == []
    (workspace.inbox / "a").write_text("1")
    assert stability.settled(inbox.scan().files)[1] == 1.0
    clock.now_s += 0.5
    note.write_text("about it")
    assert stability.settled(inbox.scan().files)[1] == 1.0
    clock.now_s += 1.0
    (ready,) = stability.settled(inbox.scan().files)[0]
    assert (ready.name, ready.note is not None and ready.note.name) == ("a", "a.note.txt")
    (workspace.inbox / "a").unlink()
    assert stability.settled(inbox.scan().files)[0] == []
    clock.now_s += 5.0
    assert [item.name for item in stability.settled(inbox.scan().files)[0]] == ["a.note.txt"]


def test_a_file_that_is_open_for_writing_is_seen(tmp_path: Path) -> None:
    """The kernel knows a writer that pauses; readers do not count."""
    file = tmp_path / "slow"
    with file.open("wb") as writer:
        writer.write(b"part")
        writer.flush()
        assert is_being_written(str(file))
    with file.open("rb"):
        assert not is_being_written(str(file))


@pytest.mark.parametrize(
    "name", ["a.part", "a.tmp", ".~lock.a#", "~$a.docx", ".hidden", "a~", "Thumbs.db", "a.crdownload"]
)
def test_temporary_names_are_left_alone(name: str, workspace: Workspace) -> None:
    """Neither ignored files nor files in ignored folders."""
    (workspace.inbox / name).write_text("x")
    (workspace.inbox / f"{name}.d").mkdir()
    folder = workspace.inbox / "sub" / name.replace("a.", "folder.")
    folder.mkdir(parents=True)
    (folder / "inner").write_text("x")
    assert [item.name for item in Scanner(workspace.inbox, IGNORE).scan().files] == []


def test_the_bridge_s_own_folders_are_not_scanned(workspace: Workspace) -> None:
    """Claimed, failed and undone files are not claimed again; subfolders of these names are scanned."""
    for room in (".claimed", "failed", "undone"):
        (workspace.inbox / room).mkdir()
        (workspace.inbox / room / "x").write_text("x")
    (workspace.inbox / "sub" / "failed").mkdir(parents=True)
    (workspace.inbox / "sub" / "failed" / "y").write_text("x")
    assert [item.name for item in Scanner(workspace.inbox, IGNORE).scan().files] == ["y"]


def test_links_are_not_followed_by_a_scan(workspace: Workspace, tmp_path: Path) -> None:
    """A link to a folder is an entry; nothing below it is scanned."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (workspace.inbox / "way").symlink_to(tmp_path / "outside")
    (item,) = Scanner(workspace.inbox, IGNORE).scan().files
    assert (item.name, item.is_link) == ("way", True)


MOUNTS = """
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /srv/with\\040space rw - nfs4 host:/export rw
31 22 0:26 / /srv/over rw - fuse.sshfs host: rw
32 31 0:27 / /srv/over rw - tmpfs tmpfs rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/home/x", "ext4", False),
        ("/srv/with space/IN1N.3OX", "nfs4", True),
        ("/srv/with spaces", "ext4", False),
        ("/srv/over/x", "tmpfs", False),
    ],
)
def test_network_file_systems_are_recognized(path: str, kind: str, remote: bool) -> None:
    """The nearest mount counts, and the latest of those on one point."""
    assert file_system_of(Path(path), MOUNTS) == kind
    assert is_remote(kind) is remote
    assert is_remote("fuse.sshfs")


@pytest.mark.parametrize(
    ("wanted", "mode"), [("auto", "events"), ("events", "events"), ("polling", "polling")]
)
def test_the_probe_decides_how_to_watch(wanted: str, mode: str, workspace: Workspace) -> None:
    """A local disk reports the probe; with polling no thread runs."""
    wake = threading.Event()
    watch = FolderWatcher(workspace.inbox, wanted, wake)
    watch.start()
    try:
        eventually(lambda: watch.mode == mode, 10.0)
        if mode == "events":
            wake.clear()
            (workspace.inbox / "sub").mkdir()
            assert wake.wait(5.0)
            watch.use([str(workspace.inbox), str(workspace.inbox / "sub")])

            def heard() -> bool:
                wake.clear()
                (workspace.inbox / "sub" / "a").write_text("x")
                return wake.wait(0.5)

            eventually(heard)
    finally:
        watch.stop()
    assert list(workspace.inbox.glob(".3ox-*")) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("plain.txt", "plain.txt"),
        ("failed", "drop-failed"),
        (".bashrc", "drop-bashrc"),
        ("half.part", "drop-half.part.drop"),
        ("~$book.xlsx", "drop-book.xlsx"),
    ],
)
def test_a_name_that_is_is_ignored_is_changed(given: str, name: str) -> None:
    """Every received file gets a name that the station accepts; the folder's own subfolders stay free."""
    names = AcceptedNames(IGNORE)
    assert names.accepted(given, "drop") == name
    assert not names.is_ignored(name)


def test_a_file_named_like_one_of_the_bridge_s_folders_is_claimed(workspace: Workspace) -> None:
    """It is claimed like any other, and then the folder can be created, for the file itself for instance."""
    (workspace.inbox / "failed").write_text("dropped")
    (workspace.inbox / "undone").mkdir()
    (found,) = Scanner(workspace.inbox, IGNORE).scan().files
    claims = Claims(workspace)
    claim = claims.claim(found)
    assert claim is not None
    place = claims.fail(claim.job_id, "why")
    assert place is not None
    assert (place / "failed").read_text() == "dropped"
    assert Scanner(workspace.inbox, IGNORE).scan().files == []


def test_a_dropped_file_is_taken_whatever_it_is_called(workspace: Workspace, tmp_path: Path) -> None:
    """Also with the name of one of the bridge's folders, which it would block."""
    loaded = load_settings(workspace.home, environ={})
    inbox = Scanner(workspace.inbox, loaded.settings.station.ignore)
    for name in ("failed", ".bashrc", "half.tmp", f"{'x' * 240}.tmp"):
        (tmp_path / name).write_text(name)
        place = drop(loaded, tmp_path / name, note="a note")
        (found,) = inbox.scan().files
        assert (found.path, place.read_text()) == (str(place), name)
        assert found.note is not None
        place.unlink()
        place.with_name(found.note.name).unlink()
