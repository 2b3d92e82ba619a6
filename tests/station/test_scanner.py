"""Scanning the drop folder: what is found, when a file is stable, how changes are noticed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ingress.station.claims import Claims
from ingress.station.scanner import Left, Scanner, foreign_entries
from ingress.station.stability import StabilityTracker, is_being_written
from ingress.station.watch import FolderWatcher, file_system_of, is_remote
from middleware.job.ids import new_job_id
from ops import ignored_names
from ops.drop_folder_layout import OWN_NAMES
from ops.errors import SettingsError
from ops.settings.station import StationSettings
from ops.workspace import Workspace
from tests.station.parts import DEFAULTS, Clock
from tests.support import eventually


def test_a_file_is_settled_when_it_has_stood_still(workspace: Workspace) -> None:
    """A change of size, time or inode restarts the wait; the time of the next check is returned."""
    clock = Clock()
    stability = StabilityTracker(settle_s=1.0, note_wait_s=5.0, clock=clock)
    file = workspace.inbox / "a"

    def look() -> tuple[list[str], float | None]:
        ready, next_s = stability.settled(Scanner(workspace.inbox, DEFAULTS).scan().files)
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
    inbox = Scanner(workspace.inbox, DEFAULTS)
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
    assert [item.name for item in Scanner(workspace.inbox, DEFAULTS).scan().files] == []


def test_the_bridge_s_own_folders_are_not_scanned(workspace: Workspace) -> None:
    """Claimed, failed and undone files are not claimed again; subfolders of these names are scanned."""
    for room in (".claimed", "failed", "undone"):
        (workspace.inbox / room).mkdir()
        (workspace.inbox / room / "x").write_text("x")
    (workspace.inbox / "sub" / "failed").mkdir(parents=True)
    (workspace.inbox / "sub" / "failed" / "y").write_text("x")
    assert [item.name for item in Scanner(workspace.inbox, DEFAULTS).scan().files] == ["y"]


def test_links_are_not_followed_by_a_scan(workspace: Workspace, tmp_path: Path) -> None:
    """A link to a folder is an entry; nothing below it is scanned."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (workspace.inbox / "way").symlink_to(tmp_path / "outside")
    (item,) = Scanner(workspace.inbox, DEFAULTS).scan().files
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


@pytest.mark.parametrize("group", ignored_names.BUILT_IN)
def test_each_built_in_pattern_works_and_can_be_switched_off(group: str, workspace: Workspace) -> None:
    """Whatever the letter case; the entry is counted as left, and with ``!PATTERN`` it is claimed."""
    for pattern in ignored_names.BUILT_IN[group]:
        name = pattern.replace("[a-z0-9]", "K").replace("[opx]", "O").replace("*", "Some").replace("?", "q")
        for spelling in (name.upper(), name.lower()):
            settings = StationSettings(dot_files=True)
            (workspace.inbox / spelling).write_text("x")
            scan = Scanner(workspace.inbox, settings).scan()
            assert scan.files == [], f"{pattern} does not ignore {spelling}"
            assert [item.path for item in scan.left] == [spelling]
            matching = [
                f"!{other}"
                for other in ignored_names.patterns([])
                if ignored_names.matcher([other]).match(spelling)
            ]
            off = Scanner(workspace.inbox, StationSettings(dot_files=True, ignore=matching)).scan()
            is_own = ignored_names.matcher(OWN_NAMES).match(spelling) is not None
            assert [item.name for item in off.files] == ([] if is_own else [spelling])
            (workspace.inbox / spelling).unlink()


@pytest.mark.parametrize(
    "name",
    [
        "report.pdf.filepart",
        "x.aria2",
        "y.!qB",
        "k.PART",
        "#emacs#",
        "4913",
        "x.swo",
        "movie.mkv.!ut",
        "a.BC!",
        "setup.exe.opdownload",
        "~WRL0001.tmp",
        "~$letter.docx",
        "thumbs.DB",
        "file.txt:Zone.Identifier",
        "~syncthing~a.txt.tmp",
        "a___jb_tmp___",
    ],
)
def test_temporary_names_of_programs_are_ignored(name: str, workspace: Workspace) -> None:
    """The names that are known from reports."""
    (workspace.inbox / name).write_text("x")
    scan = Scanner(workspace.inbox, DEFAULTS).scan()
    assert (scan.files, scan.left) == ([], [Left(name, "temporary name")])


def test_folders_of_network_storage_are_left_as_one_entry(workspace: Workspace) -> None:
    """Nothing below them is scanned."""
    for name in ("@eaDir", "#Recycle", "#snapshot", "tree/@eaDir"):
        (workspace.inbox / name / "deep").mkdir(parents=True)
        (workspace.inbox / name / "deep" / "file").write_text("x")
    scan = Scanner(workspace.inbox, DEFAULTS).scan()
    assert scan.files == []
    assert sorted(item.path for item in scan.left) == ["#Recycle", "#snapshot", "@eaDir", "tree/@eaDir"]


def test_a_setting_adds_patterns(workspace: Workspace) -> None:
    """The built-in ones stay; a pattern that is switched off must exist."""
    for name in ("A.BAK", "b.part", "c.swp", "d.txt"):
        (workspace.inbox / name).write_text("x")
    settings = StationSettings(ignore=["*.bak", "!*.sw[opx]"])
    assert [item.name for item in Scanner(workspace.inbox, settings).scan().files] == ["c.swp", "d.txt"]
    with pytest.raises(SettingsError, match=r"'\*\.prt', which is not a built-in pattern.*'\*\.part'"):
        ignored_names.check_ignore(["!*.prt"])


@pytest.mark.parametrize("partial", ["film.mkv.aria2", "film.mkv.PART", "film.mkv.crdownload"])
def test_a_file_beside_its_partial_file_is_incomplete(partial: str, workspace: Workspace) -> None:
    """Its control file, or the file that will replace the empty placeholder, is still there."""
    (workspace.inbox / "film.mkv").touch()
    (workspace.inbox / partial).write_text("x")
    scan = Scanner(workspace.inbox, DEFAULTS).scan()
    assert scan.files == []
    assert scan.left_count == 2
    (workspace.inbox / partial).unlink()
    assert [item.name for item in Scanner(workspace.inbox, DEFAULTS).scan().files] == ["film.mkv"]


def test_dot_files_are_left_or_claimed(workspace: Workspace) -> None:
    """As the setting says; system files of macOS are ignored in any case."""
    for name in ("tree/.env", "tree/.git/config", "tree/.DS_Store", "tree/a"):
        (workspace.inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.inbox / name).write_text("x")
    scan = Scanner(workspace.inbox, DEFAULTS).scan()
    assert [item.relative for item in scan.files] == ["tree/a"]
    assert sorted(map(str, scan.left)) == [
        "tree/.DS_Store (temporary name)",
        "tree/.env (dot file)",
        "tree/.git (dot file)",
    ]
    scan = Scanner(workspace.inbox, StationSettings(dot_files=True)).scan()
    assert sorted(item.relative for item in scan.files) == ["tree/.env", "tree/.git/config", "tree/a"]


def test_a_deep_tree_is_scanned_down_to_a_limit_that_is_reported(workspace: Workspace) -> None:
    """Sixty levels are nothing special; beyond the limit the folder is named."""
    deep = workspace.inbox.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (found,) = Scanner(workspace.inbox, DEFAULTS).scan().files
    assert found.relative == "d/" * 60 + "file"
    os.makedirs(deep.joinpath(*["d"] * 240))  # noqa: PTH103 (Path.mkdir recurses)
    (left,) = Scanner(workspace.inbox, DEFAULTS).scan().left
    assert left == Left("d/" * 256 + "d", "deeper than 256 folders")


def test_what_is_put_into_the_station_s_own_folders_is_reported(workspace: Workspace) -> None:
    """A folder of a user with the name of one of ours is not lost silently."""
    (workspace.inbox / "failed" / "tree").mkdir(parents=True)
    (workspace.inbox / "failed" / new_job_id()).mkdir()
    assert foreign_entries(workspace.inbox) == [Left("failed/tree", "in a folder of the station's own")]


def test_a_file_named_like_one_of_the_bridge_s_folders_is_claimed(workspace: Workspace) -> None:
    """It is claimed like any other, and then the folder can be created, for the file itself for instance."""
    (workspace.inbox / "failed").write_text("dropped")
    (workspace.inbox / "undone").mkdir()
    (found,) = Scanner(workspace.inbox, DEFAULTS).scan().files
    claims = Claims(workspace)
    claim = claims.claim(found)
    assert claim is not None
    place = claims.fail(claim.job_id, "why")
    assert place is not None
    assert (place / "failed").read_text() == "dropped"
    assert Scanner(workspace.inbox, DEFAULTS).scan().files == []
