"""The station's parts by themselves: stability, the look, claims, keys, types, the choice of how to watch."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from actors.ingest.rules import decide_by_rules, matches
from ingress.station.claims import Claim, Claims
from ingress.station.drop import file_name
from ingress.station.inbox import Found, Inbox
from ingress.station.jobs import content_key
from ingress.station.leftovers import forget_days, remove_empty_folders, remove_old_drafts
from ingress.station.stability import Stability, is_being_written
from ingress.station.taking import Taking
from ingress.station.watch import Watch, file_system_of, is_remote
from middleware.job.payloads import IngestFilePayload
from ops.dropfolder import shortened
from ops.filetype import media_type_of_head
from ops.settings import load_settings
from ops.settings_table import StationRule, StationSettings
from ops.workspace import Workspace
from tests.support import eventually

IGNORE = load_settings(Path("/nonexistent"), environ={}).settings.station.ignore


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now_s


def found(inbox: Path, name: str) -> Found:
    """Look through the folder and give the one of this name."""
    return next(item for item in Inbox(inbox, IGNORE).look().files if item.name == name)


def test_a_file_is_settled_when_it_has_stood_still(workspace: Workspace) -> None:
    """Size, time or inode that change start the wait anew; the next moment is told."""
    clock = Clock()
    stability = Stability(settle_s=1.0, note_wait_s=5.0, clock=clock)
    file = workspace.inbox / "a"

    def look() -> tuple[list[str], float | None]:
        ready, next_s = stability.settled(Inbox(workspace.inbox, IGNORE).look().files)
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
    """Alone it is taken as a file in the end; with its file it travels along and counts for stability."""
    clock = Clock()
    stability = Stability(settle_s=1.0, note_wait_s=5.0, clock=clock)
    inbox = Inbox(workspace.inbox, IGNORE)
    note = workspace.inbox / "a.note.txt"
    note.write_text("about")
    assert stability.settled(inbox.look().files) == ([], 5.0)
    clock.now_s += 4.0
    assert stability.settled(inbox.look().files)[0] == []
    (workspace.inbox / "a").write_text("1")
    assert stability.settled(inbox.look().files)[1] == 1.0
    clock.now_s += 0.5
    note.write_text("about it")
    assert stability.settled(inbox.look().files)[1] == 1.0
    clock.now_s += 1.0
    (ready,) = stability.settled(inbox.look().files)[0]
    assert (ready.name, ready.note is not None and ready.note.name) == ("a", "a.note.txt")
    (workspace.inbox / "a").unlink()
    assert stability.settled(inbox.look().files)[0] == []
    clock.now_s += 5.0
    assert [item.name for item in stability.settled(inbox.look().files)[0]] == ["a.note.txt"]


def test_a_file_that_is_open_for_writing_is_seen(tmp_path: Path) -> None:
    """The kernel knows of a writer who pauses; readers do not count."""
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
    """Neither such files nor anything in folders of such names."""
    (workspace.inbox / name).write_text("x")
    (workspace.inbox / f"{name}.d").mkdir()
    folder = workspace.inbox / "sub" / name.replace("a.", "folder.")
    folder.mkdir(parents=True)
    (folder / "inner").write_text("x")
    assert [item.name for item in Inbox(workspace.inbox, IGNORE).look().files] == []


def test_the_inner_rooms_are_not_looked_into(workspace: Workspace) -> None:
    """What is claimed, failed or undone is not taken again; folders of these names further down are."""
    for room in (".claimed", "failed", "undone"):
        (workspace.inbox / room).mkdir()
        (workspace.inbox / room / "x").write_text("x")
    (workspace.inbox / "sub" / "failed").mkdir(parents=True)
    (workspace.inbox / "sub" / "failed" / "y").write_text("x")
    assert [item.name for item in Inbox(workspace.inbox, IGNORE).look().files] == ["y"]


def test_links_are_not_followed_by_the_look(workspace: Workspace, tmp_path: Path) -> None:
    """A link to a folder is a link, and nothing below it is seen."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (workspace.inbox / "way").symlink_to(tmp_path / "outside")
    (item,) = Inbox(workspace.inbox, IGNORE).look().files
    assert (item.name, item.is_link) == ("way", True)


def test_of_two_stations_one_gets_the_file(workspace: Workspace) -> None:
    """Both have seen it; the second one's claim comes to nothing and leaves nothing."""
    (workspace.inbox / "a").write_text("1")
    (workspace.inbox / "a.note.txt").write_text("about")
    item = found(workspace.inbox, "a")
    first, second = Claims(workspace), Claims(workspace)
    claim = first.take(item)
    assert claim is not None
    assert second.take(item) is None
    assert second.all_ids() == [claim.job_id]
    assert claim.note is not None
    assert (claim.path.read_text(), claim.note.read_text()) == ("1", "about")
    assert first.load(claim.job_id) == claim


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_that_became_a_link_is_not_gone_through(
    depth: int, workspace: Workspace, tmp_path: Path
) -> None:
    """Between look and claim somebody puts a link in its place: what lies behind it stays there."""
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
    assert claims.take(item) is None
    assert claims.all_ids() == []
    assert (outside / "id").exists()
    assert (outside / "b" / "id").exists()


@pytest.mark.parametrize(
    "name", ["näme 😀.txt", "two\nlines", "x" * 255, "-rf", "a" * 240 + ".note", "%s{}'\""]
)
def test_odd_names_are_claimed_and_read_back(name: str, workspace: Workspace) -> None:
    """Whatever a file system allows; folders too."""
    folder = workspace.inbox / "sub\nfolder"
    folder.mkdir()
    (folder / name).write_text("1")
    claims = Claims(workspace)
    claim = claims.take(found(workspace.inbox, name))
    assert claim is not None
    assert (claim.name, claim.folder) == (name, "sub\nfolder")
    assert claims.load(claim.job_id) == claim
    failed = claims.fail(claim.job_id, "why")
    assert failed is not None
    assert (failed / "sub\nfolder" / name).read_text() == "1"
    assert any(path.read_text() == "why" for path in (failed / "sub\nfolder").iterdir())


def test_a_name_that_is_no_utf8_gets_one(workspace: Workspace) -> None:
    """A job can carry text only; the file is taken under a name that differs in those bytes."""
    raw = os.fsencode(workspace.inbox) + b"/caf\xe9.txt"
    with open(raw, "wb") as file:  # noqa: PTH123 (the name is bytes)
        file.write(b"1")
    (item,) = Inbox(workspace.inbox, IGNORE).look().files
    claim = Claims(workspace).take(item)
    assert claim is not None
    assert claim.name == "caf?.txt"


def test_an_unreadable_file_is_tried_a_bounded_number_of_times(tmp_path: Path) -> None:
    """It goes to ``failed/`` with the reason after the tries, each later than the one before."""
    if os.geteuid() == 0:
        pid = os.fork()
        if pid == 0:
            # Root may read everything: somebody else looks.
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
    taking = Taking(claims, 3, clock)
    item = found(workspace.inbox, "locked")
    waits = []
    for _ in range(2):
        assert taking.take(item) is None
        assert taking.next_s is not None
        waits.append(taking.next_s)
        assert taking.take(item) is None
        assert taking.next_s == waits[-1], "not before its time"
        clock.now_s += waits[-1] + 0.01
    assert waits == [0.5, 1.0]
    assert taking.take(item) is None
    (place,) = (workspace.inbox / "failed").iterdir()
    assert "Permission denied" in (place / "locked.reason.txt").read_text()
    assert not file.exists()


def test_a_link_to_a_dropped_file_is_dropped_itself(workspace: Workspace) -> None:
    """Its target is taken under its own name."""
    (workspace.inbox / "real").write_text("1")
    (workspace.inbox / "other").symlink_to("real")
    taking = Taking(Claims(workspace), 3)
    assert taking.take(found(workspace.inbox, "other")) is None
    assert not os.path.lexists(workspace.inbox / "other")
    assert (workspace.inbox / "real").exists()
    assert not (workspace.inbox / "failed").exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "../3ox.toml", "gone", ".", "../.3ox", ".claimed"])
def test_a_link_that_leads_elsewhere_is_refused(target: str, workspace: Workspace) -> None:
    """It lies in ``failed/``, still a link, and nothing of its target was read."""
    workspace.settings_file.write_text("")
    (workspace.inbox / "way").symlink_to(target)
    assert Taking(Claims(workspace), 3).take(found(workspace.inbox, "way")) is None
    (place,) = (workspace.inbox / "failed").iterdir()
    assert (place / "way").is_symlink()
    assert "points out of the drop folder" in (place / "way.reason.txt").read_text()


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"", "a.txt", "inode/x-empty"),
        (b"a;b;c\n1;2;3\n", "figures.csv", "text/csv"),
        (b"#!/bin/sh\necho\n", "run", "text/x-shellscript"),
        (b"# Title\n", "a.MD", "text/markdown"),
        ("grüße".encode()[:-1] + b"\xc3", "a.txt", "text/plain"),
        (b"%PDF-1.7\n%", "paper.txt", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture.txt", "image/png"),
        (b"PK\x03\x04\x14\0\x06\0", "a.docx", "wordprocessingml.document"),
        (b"PK\x03\x04\x14\0\x06\0", "a.zip", "application/zip"),
        (b"\0\1\2\3\4\5\6\7", "a.txt", "application/octet-stream"),
        (b"<!DOCTYPE html><html>", "page", "text/html"),
    ],
)
def test_the_type_comes_from_content_and_name(head: bytes, name: str, expected: str) -> None:
    """A name that pretends is not believed; text is told apart by its name."""
    assert media_type_of_head(head, name).endswith(expected)


def payload(name: str, folder: str = "", media_type: str = "text/plain") -> IngestFilePayload:
    """Make a file's payload."""
    return IngestFilePayload(
        path="x", name=name, sha256="0" * 64, size_bytes=1, folder=folder, media_type=media_type
    )


@pytest.mark.parametrize(
    ("pattern", "name", "folder", "fits"),
    [
        ("*.pdf", "A.PDF", "", True),
        ("*.pdf", "a.pdf.txt", "", False),
        ("papers/*", "a", "papers", True),
        ("papers/*", "a", "papers/old", True),
        ("papers/*", "a", "", False),
        ("type:text/*", "a", "", True),
        ("type:image/*", "a.png", "", False),
        ("[ab].txt", "b.txt", "", True),
    ],
)
def test_rules_match_name_path_or_type(pattern: str, name: str, folder: str, fits: bool) -> None:
    """Letter case does not matter."""
    assert matches(pattern, payload(name, folder)) is fits


def test_the_first_rule_counts() -> None:
    """And is named in the decision."""
    rules = [StationRule(match="*.a", action="GROUP"), StationRule(match="*", action="MOVE", to="there")]
    decision = decide_by_rules(rules, payload("x.b"))
    assert decision is not None
    assert (decision.action, decision.location, decision.by) == ("MOVE", "there", "rule 2")
    assert decide_by_rules(rules[:1], payload("x.b")) is None


def test_the_key_follows_the_policy() -> None:
    """Content alone, content and name, or none; a job that left nothing makes way."""
    one, other = (Claim("i", Path("x"), "", name) for name in ("a", "b"))
    once, by_name, again = (StationSettings(same_content=kind) for kind in ("once", "by_name", "again"))
    assert content_key(once, one, "s") == content_key(once, other, "s") == "file:s"
    assert content_key(by_name, one, "s") != content_key(by_name, other, "s")
    assert content_key(again, one, "s") is None
    assert content_key(once, one, "s", after="job") == "file:s:after:job"


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
def test_network_file_systems_are_known(path: str, kind: str, remote: bool) -> None:
    """The nearest mount counts, the latest of those on one point."""
    assert file_system_of(Path(path), MOUNTS) == kind
    assert is_remote(kind) is remote
    assert is_remote("fuse.sshfs")


@pytest.mark.parametrize(
    ("wanted", "mode"), [("auto", "events"), ("events", "events"), ("polling", "polling")]
)
def test_the_probe_decides_how_to_watch(wanted: str, mode: str, workspace: Workspace) -> None:
    """On this machine's disk the probe is heard; when told to poll, nothing listens."""
    wake = threading.Event()
    watch = Watch(workspace.inbox, wanted, wake)
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


def test_folders_that_stay_empty_go_except_those_of_rules(workspace: Workspace) -> None:
    """Long empty ones are removed, from the bottom; one that a rule names, or with a file in it, stays."""
    for name in ("old/deep", "papers", "full", "new"):
        (workspace.inbox / name).mkdir(parents=True)
    (workspace.inbox / "full" / ".part").write_text("x")
    for name in ("old/deep", "old", "papers", "full"):
        os.utime(workspace.inbox / name, (1, 1))
    settings = StationSettings(rules=[StationRule(match="Papers/*")], empty_folder_s=60.0)
    remove_empty_folders(Inbox(workspace.inbox, IGNORE), settings)
    os.utime(workspace.inbox / "old", (1, 1))
    remove_empty_folders(Inbox(workspace.inbox, IGNORE), settings)
    assert sorted(path.name for path in workspace.inbox.iterdir()) == ["full", "new", "papers"]


def test_journals_of_old_days_are_forgotten(workspace: Workspace) -> None:
    """Whole days, when they have been over for as long as jobs are kept; nothing else in the folder."""
    for name in ("2020-01-01", "2999-01-01", "lock"):
        (workspace.undo_dir / name).mkdir(parents=True)
    assert forget_days(workspace.undo_dir, keep_s=60.0) == ["2020-01-01"]
    assert sorted(path.name for path in workspace.undo_dir.iterdir()) == ["2999-01-01", "lock"]
    assert forget_days(workspace.home / "missing", keep_s=1.0) == []


def test_drafts_of_the_dead_are_removed(workspace: Workspace) -> None:
    """What nobody has written to for a day; a browser's own half files are none of ours."""
    old = (".upload-0123456789abcdef.part", ".3ox-drop-01m80jd6vsb3xqdhsbzr.note.part", "film.part")
    for name in (*old, ".upload-fedcba9876543210.part"):
        (workspace.inbox / name).write_text("x")
    for name in old:
        os.utime(workspace.inbox / name, (1.0, 1.0))
    assert sorted(remove_old_drafts(workspace.inbox)) == sorted(old[:2])
    assert (workspace.inbox / "film.part").exists()
    assert (workspace.inbox / ".upload-fedcba9876543210.part").exists()


@pytest.mark.parametrize(
    ("given", "name"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\y.doc", "y.doc"), ("", "file"), ("..", "file"), ("a\0b", "ab")],
)
def test_a_stranger_s_file_name_is_one_name(given: str, name: str) -> None:
    """No path, nothing empty, no zero byte."""
    assert file_name(given) == name


@pytest.mark.parametrize("name", ["ü" * 200 + ".txt", "x" * 300, "." + "y" * 300, "a." + "z" * 300])
def test_a_long_name_is_cut_at_its_stem(name: str) -> None:
    """It fits, ends as before where that is possible, and holds what was put in."""
    cut = shortened(name, "~id")
    assert len(cut.encode()) <= 255
    assert "~id" in cut
    if name.endswith(".txt"):
        assert cut.endswith("~id.txt")
