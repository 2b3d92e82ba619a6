"""The seven actions: what they make, killed at every step, next to files of others, undone."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from actors.context import set_settings
from actors.ingest.decision import ACTIONS
from actors.ingest.undo import undo
from middleware.job.ids import new_job_id
from ops.errors import JobFailed, JobNotFound, JobRefused, WrongState
from ops.settings.load import LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.station.killing import dies_at
from tests.station.running import files_below

JOB_ID = "01m80e1v6gqs01n3ev5v"
DAY = "2026/11"
RULE = '[[station.rules]]\nmatch = "*"\naction = "{action}"\n{to}'
CONTENT = b"quarterly figures\n"
NOTE = "for the board"

#: What each action leaves of ``plan.txt`` with a note, dropped in ``in/``: files, relative to the workspace.
EXPECTED = {
    "EDIT": {"WORKDESK/in/plan.txt", "WORKDESK/in/plan.txt.note.txt"},
    "MOVE": {"there/plan.txt", "there/plan.txt.note.txt"},
    "PROJECT": {
        "PROJECTS/there/README.md",
        "PROJECTS/there/support/plan.txt",
        "PROJECTS/there/support/plan.txt.note.txt",
    },
    "CODEX": {"WORKDESK/in/plan.txt", "WORKDESK/in/plan.txt.note.txt", "there/plan.txt.md"},
    "GROUP": {"GROUPS/there/plan.txt", "GROUPS/there/plan.txt.note.txt"},
    "ARCHIVE": {f"there/{DAY}/plan.txt", f"there/{DAY}/plan.txt.note.txt"},
    "REFERENCE": {"there/plan.txt", "there/plan.txt.note.txt"},
}


def rule(action: str) -> str:
    """Return a 3ox.toml that has this done with every file."""
    to = "" if action == "EDIT" else 'to = "there"\n'
    return RULE.format(action=action, to=to)


def claimed(workspace: Workspace, content: bytes = CONTENT, **fields: Any) -> dict[str, Any]:
    """Create a file as the station claims it, and return the payload of its job."""
    workspace.create()
    payload = {"name": "plan.txt", "folder": "in", "note": NOTE, "media_type": "text/plain", **fields}
    place = workspace.inbox / ".claimed" / JOB_ID / payload["folder"] / payload["name"]
    place.parent.mkdir(parents=True, exist_ok=True)
    # A link of an earlier claim must not be written through.
    place.unlink(missing_ok=True)
    place.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"path": str(place), "sha256": digest, "size_bytes": len(content), **payload}


def ingest(payload: dict[str, Any]) -> Any:
    """Run the job in this thread."""
    return JobRun("ingest.file", payload, job_id=JOB_ID).run()


def tree(workspace: Workspace) -> dict[str, bytes]:
    """Return all that the job may have made: path and content; empty folders with a slash at the end."""
    inner = {workspace.state_dir, workspace.inbox, workspace.settings_file}
    found: dict[str, bytes] = {}
    for top in sorted(workspace.home.iterdir()):
        if top in inner:
            continue
        for path in (top, *top.rglob("*")):
            name = str(path.relative_to(workspace.home))
            if path.is_file():
                found[name] = path.read_bytes()
            elif not any(path.iterdir()):
                found[f"{name}/"] = b""
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_leaves_what_it_should(action: str, configure: Configure) -> None:
    """Files, notes and texts are where the action says, the file with its content; the source stays."""
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace)
    result = ingest(payload)
    made = {name for name in tree(workspace) if not name.endswith("/")}
    assert made == EXPECTED[action]
    assert (workspace.home / result.path).read_bytes() == CONTENT
    assert (result.action, result.by) == (action, "rule 1")
    assert Path(payload["path"]).read_bytes() == CONTENT
    assert {step for step in result.made if (workspace.home / step).is_file()} == made


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("action", ACTIONS)
def test_killed_before_any_step_a_rerun_gives_the_same_tree(
    action: str, links: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGKILL just before each step in the file system, then a rerun: the tree of an undisturbed run."""
    if not links:
        _without_links(monkeypatch)
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace)
    ingest(payload)
    undisturbed = tree(workspace)
    killed = 0
    while True:
        home = Workspace(tmp_path / f"home-{killed + 1}")
        payload = claimed(home)
        _use(home, action)
        if not dies_at(killed + 1, home.home, lambda payload=payload: ingest(payload)):  # type: ignore[misc]
            break
        killed += 1
        ingest(payload)
        assert tree(home) == undisturbed, f"killed before step {killed}"
    assert killed >= 5


def _use(home: Workspace, action: str) -> None:
    home.settings_file.write_text(rule(action))
    set_settings(load_settings(home.home, environ={}))


def _without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave like a file system that knows no hard links."""

    def refuse(source: object, target: object, *, follow_symlinks: bool = True) -> None:
        del source, target, follow_symlinks
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("ops.files.os.link", refuse)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_rerun_after_the_end_changes_nothing(action: str, configure: Configure) -> None:
    """The commit of the result was lost: the second attempt has the same result and the same tree."""
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace)
    first = ingest(payload)
    before = tree(workspace)
    assert ingest(payload) == first
    assert tree(workspace) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_overwritten(action: str, configure: Configure) -> None:
    """Where a name is taken by something else, ours gets the job's id; the other stays as it was."""
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace)
    others = EXPECTED[action]
    for name in others:
        place = workspace.home / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"of another user")
    result = ingest(payload)
    assert all((workspace.home / name).read_bytes() == b"of another user" for name in others)
    assert JOB_ID in result.path
    assert (workspace.home / result.path).read_bytes() == CONTENT
    assert not [name for name in tree(workspace) if name.endswith(".part")]


@pytest.mark.parametrize("action", ACTIONS)
def test_undo_takes_everything_back(action: str, configure: Configure) -> None:
    """The workspace is as before, and the file is in ``undone/``; a second undo is refused."""
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace)
    before = tree(workspace)
    ingest(payload)
    done = undo(workspace, JOB_ID)
    assert tree(workspace) == before
    assert done.file is not None
    assert Path(done.file).read_bytes() == CONTENT
    assert Path(done.file).is_relative_to(workspace.inbox / "undone" / JOB_ID)
    with pytest.raises(WrongState, match="undone before"):
        undo(workspace, JOB_ID)


@pytest.mark.parametrize("action", ["EDIT", "PROJECT", "CODEX"])
def test_an_undo_that_was_killed_is_completed_by_the_next(
    action: str, configure: Configure, tmp_path: Path
) -> None:
    """Killed before each of its steps: the next undo ends with the workspace as it was before the job."""
    killed = 0
    while True:
        home = Workspace(tmp_path / f"home-{killed + 1}")
        configure()
        payload = claimed(home)
        _use(home, action)
        before = tree(home)
        ingest(payload)
        ended = not dies_at(killed + 1, home.home, lambda home=home: undo(home, JOB_ID))  # type: ignore[misc]
        if ended:
            break
        killed += 1
        undo(home, JOB_ID)
        assert tree(home) == before, f"killed before step {killed}"
        assert [path.name for path in files_below(home.inbox / "undone")] == ["plan.txt"]
    assert killed >= 5


@pytest.mark.parametrize("which", ["plan.txt", "plan.txt.note.txt", "plan.txt.md"])
def test_what_was_changed_since_is_not_undone(which: str, configure: Configure) -> None:
    """One changed file, and nothing at all is taken back; the message names it."""
    workspace = configure(rule("CODEX")).workspace
    ingest(claimed(workspace))
    place = next(workspace.home / name for name in EXPECTED["CODEX"] if name.endswith(f"/{which}"))
    place.unlink()
    place.write_bytes(b"edited")
    before = tree(workspace)
    with pytest.raises(WrongState, match="changed since"):
        undo(workspace, JOB_ID)
    assert tree(workspace) == before


def test_a_folder_with_something_else_in_it_stays(configure: Configure) -> None:
    """Undo leaves what others have put into a folder that the job made."""
    workspace = configure(rule("PROJECT")).workspace
    ingest(claimed(workspace))
    ours = workspace.home / "PROJECTS/there/output/report.md"
    ours.write_text("mine")
    done = undo(workspace, JOB_ID)
    assert set(tree(workspace)) == {"PROJECTS/there/output/report.md", "WORKDESK/", "0UT.3OX/"}
    assert "PROJECTS/there/output" in done.kept


def test_what_a_failed_job_has_begun_is_undone_too(configure: Configure, tmp_path: Path) -> None:
    """Killed in the middle and never run again: only once the job is known to have ended."""
    configure()
    home = Workspace(tmp_path / "other")
    payload = claimed(home)
    _use(home, "PROJECT")
    before = tree(home)
    assert dies_at(8, home.home, lambda: ingest(payload))
    assert tree(home) != before
    with pytest.raises(WrongState, match="has not finished yet"):
        undo(home, JOB_ID)
    undo(home, JOB_ID, ended=True)
    assert tree(home) == before
    with pytest.raises(WrongState, match="undone before"):
        undo(home, JOB_ID, ended=True)


def test_a_job_without_a_journal_cannot_be_undone(plain: LoadedSettings) -> None:
    """The error says what can be undone."""
    plain.workspace.create()
    with pytest.raises(JobNotFound, match="nothing to undo"):
        undo(plain.workspace, JOB_ID)


@pytest.mark.parametrize(
    "to",
    [
        "../outside",
        "/etc/cron.d",
        "there/../../x",
        "~/x",
        ".3ox/keys",
        "IN1N.3OX/again",
        "\\\\server\\x",
        ".",
    ],
)
def test_a_location_outside_is_refused(to: str, configure: Configure) -> None:
    """Nothing is made, inside or outside, and the job says why."""
    workspace = configure(f'[[station.rules]]\nmatch = "*"\naction = "MOVE"\nto = \'{to}\'\n').workspace
    payload = claimed(workspace)
    before = tree(workspace)
    with pytest.raises(JobRefused, match="not a folder inside the workspace"):
        ingest(payload)
    assert tree(workspace) == before


def test_a_link_on_the_way_does_not_lead_out(configure: Configure, tmp_path: Path) -> None:
    """A folder of the workspace that is a link leading out is refused."""
    workspace = configure(rule("MOVE")).workspace
    payload = claimed(workspace)
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace.home / "there").symlink_to(outside)
    with pytest.raises(JobRefused, match="not a folder inside the workspace"):
        ingest(payload)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/etc/passwd"},
        {"name": "../evil"},
        {"name": ".."},
        {"folder": "../.."},
        {"folder": "/etc"},
    ],
)
def test_a_payload_that_leads_out_is_refused(fields: dict[str, Any], configure: Configure) -> None:
    """The job may come through any door: its paths are checked."""
    workspace = configure().workspace
    payload = claimed(workspace)
    before = tree(workspace)
    with pytest.raises(JobRefused):
        ingest({**payload, **fields})
    assert tree(workspace) == before


def test_a_file_that_is_not_what_was_dropped_is_refused(configure: Configure) -> None:
    """One byte more, and nothing is done with it."""
    workspace = configure().workspace
    payload = claimed(workspace)
    with Path(payload["path"]).open("ab") as file:
        file.write(b"!")
    with pytest.raises(JobRefused, match="has changed since"):
        ingest(payload)
    assert set(tree(workspace)) == {"WORKDESK/", "0UT.3OX/"}


def test_a_link_in_place_of_the_file_is_not_followed(configure: Configure, tmp_path: Path) -> None:
    """A link to a file with the right content is refused all the same."""
    workspace = configure().workspace
    payload = claimed(workspace)
    real = tmp_path / "real"
    real.write_bytes(CONTENT)
    Path(payload["path"]).unlink()
    Path(payload["path"]).symlink_to(real)
    with pytest.raises(JobRefused, match="not a regular file"):
        ingest(payload)


def test_a_full_disk_is_a_reason_to_try_again(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found before anything is written; when there is room again the job ends as it should."""
    workspace = configure(rule("EDIT")).workspace
    payload = claimed(workspace)
    real = os.statvfs

    def full(path: str) -> Any:
        found = list(real(path))
        found[4] = 0
        return os.statvfs_result(found)

    with monkeypatch.context() as patch:
        patch.setattr("ops.files.os.statvfs", full)
        with pytest.raises(JobFailed, match="bytes left") as caught:
            ingest(payload)
        assert not isinstance(caught.value, JobRefused)
    ingest(payload)
    assert {name for name in tree(workspace) if not name.endswith("/")} == EXPECTED["EDIT"]


def test_a_second_file_joins_a_project(configure: Configure) -> None:
    """The README of the first stays; both files are in support/."""
    workspace = configure(rule("PROJECT")).workspace
    ingest(claimed(workspace, note=None))
    readme = (workspace.home / "PROJECTS/there/README.md").read_bytes()
    second = claimed(workspace, b"more", name="more.txt", note=None)
    JobRun("ingest.file", second, job_id="01m80e1v6gqs01n3ev6w").run()
    assert (workspace.home / "PROJECTS/there/README.md").read_bytes() == readme
    assert sorted(path.name for path in files_below(workspace.home / "PROJECTS/there/support")) == [
        "more.txt",
        "plan.txt",
    ]


def linked(workspace: Workspace, target: str, **fields: Any) -> dict[str, Any]:
    """Create a link as the station claims it, and return the payload of its job."""
    payload = claimed(workspace, note=None, **fields)
    place = Path(payload["path"])
    place.unlink()
    place.symlink_to(target)
    size_bytes = len(target.encode())
    digest = hashlib.sha256(target.encode()).hexdigest()
    return {**payload, "kind": "link", "link": target, "sha256": digest, "size_bytes": size_bytes}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_link_is_kept_only_where_the_tree_is(action: str, configure: Configure) -> None:
    """EDIT keeps it as it is, undo takes it back; any other action refuses it."""
    workspace = configure(rule(action)).workspace
    payload = linked(workspace, "sub/../other" if action == "MOVE" else "other")
    if action != "EDIT":
        with pytest.raises(JobRefused, match="cannot be kept"):
            ingest(payload)
        assert [name for name in tree(workspace) if "plan" in name] == []
        return
    for _ in range(2):
        result = ingest(payload)
        assert (result.path, result.made[-1]) == ("WORKDESK/in/plan.txt", "WORKDESK/in/plan.txt")
        assert os.readlink(workspace.home / result.path) == "other"  # noqa: PTH115 (the text as it is)
    done = undo(workspace, JOB_ID)
    assert done.file == str(workspace.inbox / "undone" / JOB_ID / "plan.txt")
    assert Path(done.file).is_symlink()
    assert not (workspace.workdesk / "in").exists()


@pytest.mark.parametrize("target", ["/nonexistent/x", "../outside", "../../x", "a/../../x"])
def test_a_link_that_leads_out_is_refused_by_the_worker_too(target: str, configure: Configure) -> None:
    """A job may come from any interface, so the station's check does not count."""
    workspace = configure().workspace
    with pytest.raises(JobRefused, match="cannot be kept"):
        ingest(linked(workspace, target))
    with pytest.raises(JobRefused, match="has changed since it was claimed"):
        ingest({**linked(workspace, "other"), "link": "harmless"})
    assert not (workspace.workdesk / "in").exists()


def test_a_link_does_not_replace_anything(configure: Configure) -> None:
    """A file or another link of its name stays; the job's id becomes part of the name."""
    workspace = configure().workspace
    payload = linked(workspace, "other")
    (workspace.workdesk / "in").mkdir()
    (workspace.workdesk / "in" / "plan.txt").symlink_to("mine")
    assert ingest(payload).path == f"WORKDESK/in/plan~{JOB_ID}.txt"
    assert os.readlink(workspace.workdesk / "in" / "plan.txt") == "mine"  # noqa: PTH115 (the text as it is)


#: Where each action puts the empty folder ``plan`` that was dropped in ``in/``.
FOLDERS = {
    "EDIT": "WORKDESK/in/plan",
    "MOVE": "there/plan",
    "PROJECT": "PROJECTS/there/support/plan",
    "CODEX": "WORKDESK/in/plan",
    "GROUP": "GROUPS/there/plan",
    "ARCHIVE": f"there/{DAY}/plan",
    "REFERENCE": "there/plan",
}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_empty_folder_is_created(action: str, configure: Configure) -> None:
    """Only folders are created, and undo removes them; one that exists stays."""
    workspace = configure(rule(action)).workspace
    payload = claimed(workspace, note=None, name="plan")
    Path(payload["path"]).unlink()
    Path(payload["path"]).mkdir()
    payload |= {"kind": "folder", "sha256": hashlib.sha256(b"").hexdigest(), "size_bytes": 0}
    for _ in range(2):
        assert ingest(payload).path == FOLDERS[action]
    assert [name for name in tree(workspace) if not name.endswith("/")] == []
    undo(workspace, JOB_ID)
    assert not (workspace.home / FOLDERS[action]).exists()
    (workspace.home / FOLDERS[action]).mkdir(parents=True)
    result = JobRun("ingest.file", payload, job_id=new_job_id()).run()
    assert (result.path, FOLDERS[action] in result.made) == (FOLDERS[action], False)
    (Path(payload["path"]) / "late").write_text("x")
    with pytest.raises(JobRefused, match="has changed since it was claimed"):
        JobRun("ingest.file", payload, job_id=new_job_id()).run()


@pytest.mark.parametrize("name", ["a\\b.txt", "~tilde", "-rf", "a..b", "{file}"])
def test_a_name_is_not_a_path(name: str, configure: Configure) -> None:
    """F2: characters that mean something on other systems are kept, in names and in folders."""
    workspace = configure().workspace
    result = ingest(claimed(workspace, name=name, folder=f"in/{name}"))
    assert result.path == f"WORKDESK/in/{name}/{name}"
    assert (workspace.home / result.path).read_bytes() == CONTENT


def test_archive_adds_year_and_month_to_the_folder_of_the_rule(configure: Configure) -> None:
    """F7: as docs/how-to/drop-folder.md says."""
    workspace = configure('[[station.rules]]\nmatch = "*"\naction = "ARCHIVE"\nto = "Finance"\n').workspace
    assert ingest(claimed(workspace)).path == f"Finance/{DAY}/plan.txt"
