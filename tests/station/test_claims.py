"""A file is claimed by one station, under its own name, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingress.core.file_jobs import read_claim
from ingress.station.claiming import Claimer
from ingress.station.claims import Claims
from ingress.station.scanner import Left, Scanner
from ops.drop_folder_layout import claim_folder
from ops.workspace import Workspace
from tests.station.parts import DEFAULTS, Clock, found


def test_of_two_stations_one_gets_the_file(workspace: Workspace) -> None:
    """Both have found it; the second claim fails and leaves nothing."""
    (workspace.inbox / "a").write_text("1")
    (workspace.inbox / "a.note.txt").write_text("about")
    item = found(workspace.inbox, "a")
    first, second = Claims(workspace), Claims(workspace)
    claim = first.claim(item)
    assert claim is not None
    assert second.claim(item) is None
    assert second.all_ids() == [claim.job_id]
    assert claim.note is not None
    assert (claim.path.read_text(), claim.note.read_text()) == ("1", "about")
    assert first.load(claim.job_id) == claim


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_that_became_a_link_is_not_gone_through(
    depth: int, workspace: Workspace, tmp_path: Path
) -> None:
    """A folder is replaced by a link between scan and claim: the link's target stays untouched."""
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    folder = workspace.inbox / "a" if depth == 1 else workspace.inbox / "a" / "b"
    folder.mkdir(parents=True)
    for place in (folder, outside, outside / "b"):
        (place / "id").write_text("mine")
    item = found(workspace.inbox, "id")
    (workspace.inbox / "a").rename(tmp_path / "gone")
    (workspace.inbox / "a").symlink_to(outside)
    claims = Claims(workspace)
    assert claims.claim(item) is None
    assert claims.all_ids() == []
    assert (outside / "id").exists()
    assert (outside / "b" / "id").exists()


@pytest.mark.parametrize(
    "name", ["näme 😀.txt", "two\nlines", "x" * 255, "-rf", "a" * 240 + ".note", "%s{}'\""]
)
def test_unusual_names_are_claimed_and_read_back(name: str, workspace: Workspace) -> None:
    """Whatever a file system allows; folders too."""
    folder = workspace.inbox / "sub\nfolder"
    folder.mkdir()
    (folder / name).write_text("1")
    claims = Claims(workspace)
    claim = claims.claim(found(workspace.inbox, name))
    assert claim is not None
    assert (claim.name, claim.folder) == (name, "sub\nfolder")
    assert claims.load(claim.job_id) == claim
    failed = claims.fail(claim.job_id, "why")
    assert failed is not None
    assert (failed / "sub\nfolder" / name).read_text() == "1"
    assert any(path.read_text() == "why" for path in (failed / "sub\nfolder").iterdir())


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"caf\xe9.txt", "caf\\xe9.txt"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\xff" * 200 + b".txt", "\\xff" * 62 + "\\xf.txt"),
    ],
)
def test_a_name_that_is_not_utf8_is_escaped(raw: bytes, name: str, workspace: Workspace) -> None:
    """A job carries text only; a folder and a link are changed in the same way."""
    place = Path(os.fsdecode(os.fsencode(workspace.inbox) + b"/tr\xe9e"))
    place.mkdir()
    (place / os.fsdecode(raw)).write_text("1")
    (place / "link").symlink_to(os.fsdecode(raw))
    claims = Claims(workspace)
    dropped = sorted(Scanner(workspace.inbox, DEFAULTS).scan().files, key=lambda item: item.is_link)
    file, link = (claims.claim(item) for item in dropped)
    assert file is not None
    assert link is not None
    assert (file.folder, file.name) == ("tr\\xe9e", name)
    assert read_claim(link, lambda: None).link == name


def test_an_unreadable_file_is_tried_a_bounded_number_of_times(tmp_path: Path) -> None:
    """After the last attempt it goes to ``failed/`` with the reason; the waits grow."""
    if os.geteuid() == 0:
        # The other user may not be able to read Python's library, which logging needs.
        import structlog  # noqa: F401

        pid = os.fork()
        if pid == 0:
            # Root can read everything, so another user scans.
            code = 1
            try:
                other = Path(f"/tmp/3ox-unreadable-{os.getpid()}")  # noqa: S108 (others have to get there)
                os.seteuid(65_534)
                _try_unreadable(other)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        _try_unreadable(tmp_path)


def _try_unreadable(home: Path) -> None:
    workspace = Workspace(home)
    workspace.create()
    file = workspace.inbox / "locked"
    file.write_text("1")
    file.chmod(0)
    clock, claims = Clock(), Claims(workspace)
    claimer = Claimer(claims, 3, clock)
    item = found(workspace.inbox, "locked")
    waits = []
    for _ in range(2):
        assert claimer.claim(item) is None
        assert claimer.next_s is not None
        waits.append(claimer.next_s)
        assert claimer.claim(item) is None
        assert claimer.next_s == waits[-1], "not before its time"
        clock.now_s += waits[-1] + 0.01
    assert waits == [0.5, 1.0]
    assert claimer.failed(str(workspace.inbox)) == [Left("locked", "cannot be claimed: Permission denied")]
    assert claimer.claim(item) is None
    (place,) = (workspace.inbox / "failed").iterdir()
    assert "Permission denied" in (place / "locked.reason.txt").read_text()
    assert not file.exists()


@pytest.mark.parametrize(
    ("folder", "target", "problem"),
    [
        ("", "real", ""),
        ("", "./tree//file", ""),
        ("", "missing", ""),
        ("tree/sub", "../file", ""),
        ("tree/sub", "..", ""),
        ("tree/sub/deep", "../../other/./file", ""),
        ("tree", ".", ""),
        ("", "/nonexistent/x", "an absolute path"),
        ("", "../3ox.toml", "outside what was dropped"),
        ("", "../.3ox", "outside what was dropped"),
        ("", ".", "outside what was dropped"),
        ("", ".claimed", "a folder of the station's own"),
        ("", "failed/x", "a folder of the station's own"),
        ("tree", "../other", "outside what was dropped"),
        ("tree/sub", "../../other", "outside what was dropped"),
        ("tree/sub", "link/../../file", "goes up after it goes down"),
    ],
)
def test_a_link_is_claimed_if_it_stays_inside_what_was_dropped(
    folder: str, target: str, problem: str, workspace: Workspace
) -> None:
    """It is claimed as a link; any other goes to ``failed/`` with the reason. No target is read."""
    workspace.settings_file.write_text("")
    (workspace.inbox / folder).mkdir(parents=True, exist_ok=True)
    (workspace.inbox / folder / "way").symlink_to(target)
    claims = Claims(workspace)
    claim = Claimer(claims, 3).claim(found(workspace.inbox, "way"))
    assert not os.path.lexists(workspace.inbox / folder / "way")
    if problem:
        assert claim is None
        (place,) = (workspace.inbox / "failed").iterdir()
        assert (place / folder / "way").is_symlink()
        assert problem in (place / folder / "way.reason.txt").read_text()
    else:
        assert claim is not None
        text = os.readlink(claim.path)  # noqa: PTH115 (the text as it is, without normalization)
        assert (text, claim.folder) == (target, folder)
        assert claims.load(claim.job_id) == claim


@pytest.mark.parametrize("change", ["replaced", "appended", "touched"])
def test_a_file_that_changed_since_the_scan_is_not_claimed(change: str, workspace: Workspace) -> None:
    """It has to be stable again first: another program may still be writing it in pieces."""
    file = workspace.inbox / "a"
    file.write_text("1")
    item = found(workspace.inbox, "a")
    if change == "replaced":
        (workspace.inbox / "b").write_text("2")
        (workspace.inbox / "b").replace(file)
    elif change == "appended":
        with file.open("a") as writer:
            writer.write("2")
    else:
        os.utime(file, (1, 1))
    claims = Claims(workspace)
    assert claims.claim(item) is None
    assert (file.exists(), claims.all_ids()) == (True, [])
    assert claims.claim(found(workspace.inbox, "a")) is not None


def test_an_empty_folder_is_claimed_unless_it_is_filled_meanwhile(workspace: Workspace) -> None:
    """The folder that got a file stays with it; nothing can be lost between scan and claim."""
    (workspace.inbox / "tree" / "empty").mkdir(parents=True)
    (scanned,) = [
        item.entry
        for item in Scanner(workspace.inbox, DEFAULTS).scan().subfolders
        if item.entry.name == "empty"
    ]
    claims = Claims(workspace)
    (workspace.inbox / "tree" / "empty" / "late").write_text("1")
    assert claims.claim(scanned) is None
    assert (workspace.inbox / "tree" / "empty" / "late").exists()
    assert claims.all_ids() == []
    (workspace.inbox / "tree" / "empty" / "late").unlink()
    claim = claims.claim(scanned)
    assert claim is not None
    assert (claim.path.is_dir(), claim.folder, claim.name) == (True, "tree", "empty")
    assert claims.load(claim.job_id) == claim
    assert not (workspace.inbox / "tree" / "empty").exists()
    claims.discard(claim.job_id)
    assert list(claims.root.iterdir()) == []
    # What a claim of a file leaves if the station is killed before the file is moved.
    (claim_folder(workspace, claim.job_id) / "tree" / "empty").mkdir(parents=True)
    assert claims.load(claim.job_id) is None
