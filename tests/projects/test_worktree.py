"""A worktree and branch for each task: what is committed, kept, removed and shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.process.child import CommandFailed
from actors.process.worktree import bounded
from middleware.interrupts import JobCancelled
from middleware.job.ids import new_job_id
from ops.errors import JobRefused
from ops.settings.load import LoadedSettings
from tests.actors.conftest import Configure, configure
from tests.actors.running import JobRun
from tests.projects.conftest import git, make_repository, project
from tests.support import eventually
from tests.tools import require_tool

__all__ = ["configure"]


class Trees:
    """A project whose tasks run in worktrees.

    Parameters:
        configure: Sets the settings of this process.
        repository: The project's repository.
    """

    def __init__(self, configure: Configure, repository: Path) -> None:
        self._configure = configure
        self.repository = repository
        self.loaded: LoadedSettings = self.set()

    def set(self, *more: str, path: Path | None = None, **overrides: object) -> LoadedSettings:
        """Configure the project with further lines."""
        where = self.repository if path is None else path
        self.loaded = self._configure(project(where, "demo", "worktree = true", *more), **overrides)
        return self.loaded

    def task(self, script: str, job_id: str | None = None) -> JobRun:
        """Return a task."""
        more = {} if job_id is None else {"job_id": job_id}
        return JobRun("task.custom", {"task": script}, project="demo", **more)

    def run(self, script: str) -> Any:
        """Run a task that succeeds, and return its changes."""
        return self.task(script).run().changes

    def fail(self, script: str) -> Any:
        """Run a task that fails, and return its changes."""
        with pytest.raises(CommandFailed) as caught:
            self.task(script).run()
        return caught.value.result.changes  # type: ignore[attr-defined]

    @property
    def folder(self) -> Path:
        """The directory of the worktrees."""
        return self.loaded.workspace.worktrees_dir / "demo"

    def left(self) -> list[str]:
        """Return the names in it."""
        return sorted(path.name for path in self.folder.iterdir())

    def branches(self) -> list[str]:
        """Return the branches of the repository."""
        return git(self.repository, "branch", "--format=%(refname:short)").splitlines()


@pytest.fixture
def trees(configure: Configure, repository: Path) -> Trees:
    """A project whose tasks run in worktrees."""
    return Trees(configure, repository)


def test_success_is_a_commit_on_a_branch_of_its_own(trees: Trees) -> None:
    """Changes, new and deleted files are committed; the project's own files and branch stay as they were."""
    run = trees.task("echo more >> a.txt; rm sub/b.txt; echo new > c.txt; pwd")
    changes = run.run().changes
    assert run.reporter.text("out") == f"{trees.folder}/{run.job.job_id}\n"
    assert changes.branch == f"3ox/{run.job.job_id}"
    assert (changes.files, changes.insertions, changes.deletions) == (3, 2, 1)
    assert changes.path is None
    assert trees.left() == []
    assert git(trees.repository, "status", "--porcelain") == ""
    assert git(trees.repository, "rev-parse", "main") == changes.base
    assert git(trees.repository, "rev-parse", changes.branch) == changes.commit
    assert git(trees.repository, "show", f"{changes.branch}:c.txt") == "new"
    assert git(trees.repository, "log", "-1", "--format=%an %s", changes.branch).startswith(
        "Tester echo more"
    )
    assert run.job.job_id in git(trees.repository, "log", "-1", "--format=%b", changes.branch)
    assert git(trees.repository, "worktree", "list").count("\n") == 0


def test_failure_keeps_the_worktree_as_it_is(trees: Trees) -> None:
    """Nothing is committed, the files stay, and the diff includes untracked ones."""
    changes = trees.fail("echo more >> a.txt; echo new > c.txt; git add a.txt; exit 3")
    tree = Path(changes.path)
    assert (tree / "c.txt").read_text() == "new\n"
    assert git(tree, "status", "--porcelain").splitlines() == ["M  a.txt", "?? c.txt"]
    assert (changes.commit, changes.branch, changes.files) == (None, None, 2)
    assert "+more" in changes.diff
    assert "+new" in changes.diff
    assert not (trees.folder / f"{tree.name}.lock").exists()


def test_a_task_that_changes_nothing_leaves_nothing(trees: Trees) -> None:
    """No branch, no worktree, an empty diff."""
    changes = trees.run("true")
    assert (changes.branch, changes.commit, changes.files, changes.diff) == (None, None, 0, "")
    assert trees.branches() == ["main"]
    assert trees.left() == []


def test_commits_of_the_task_itself_are_kept_whatever_branch_they_are_on(trees: Trees) -> None:
    """The branch has what the task committed and left; a branch created by the task is not moved."""
    script = (
        "git checkout -q -b mine; echo 1 > own.txt; git add own.txt; git commit -qm own; echo 2 > left.txt"
    )
    changes = trees.run(script)
    subjects = git(trees.repository, "log", "--format=%s", f"main..{changes.branch}").splitlines()
    assert subjects[1:] == ["own"]
    assert len(subjects) == 2
    assert git(trees.repository, "log", "-1", "--format=%s", "mine") == "own"
    assert changes.files == 2


def test_a_project_may_be_a_folder_of_a_repository(trees: Trees, repository: Path) -> None:
    """The task runs in the folder that corresponds to the project's."""
    trees.set(path=repository / "sub")
    run = trees.task("pwd; echo more >> b.txt")
    changes = run.run().changes
    assert run.reporter.text("out").endswith(f"{run.job.job_id}/sub\n")
    assert git(repository, "show", f"{changes.branch}:sub/b.txt") == "two\nmore"


def test_base_names_where_to_start(trees: Trees, repository: Path) -> None:
    """The worktree starts from that branch or tag; an unknown name is refused."""
    git(repository, "tag", "v1")
    (repository / "a.txt").write_text("changed\n")
    git(repository, "commit", "--quiet", "-am", "second")
    trees.set('base = "v1"')
    changes = trees.run("cat a.txt > seen.txt")
    assert git(repository, "show", f"{changes.branch}:seen.txt") == "one"
    trees.set('base = "nowhere"')
    with pytest.raises(JobRefused, match="'nowhere'") as caught:
        trees.task("true").run()
    assert "base" in caught.value.remedy


def test_what_has_no_repository_or_commit_is_refused(trees: Trees, tmp_path: Path) -> None:
    """The error names the remedy."""
    plain, empty = tmp_path / "plain", tmp_path / "empty"
    plain.mkdir()
    empty.mkdir()
    git(empty, "init", "--quiet")
    trees.set(path=plain)
    with pytest.raises(JobRefused, match="is not in a git repository") as caught:
        trees.task("true").run()
    assert "git init" in caught.value.remedy
    trees.set(path=empty)
    with pytest.raises(JobRefused, match="no such commit"):
        trees.task("true").run()
    trees.set(path=tmp_path / "gone")
    with pytest.raises(JobRefused, match="gone"):
        trees.task("true").run()


def test_hooks_of_the_repository_do_not_run(trees: Trees, repository: Path, tmp_path: Path) -> None:
    """A task could have put them there."""
    for name in ("post-checkout", "pre-commit", "commit-msg", "reference-transaction", "post-commit"):
        hook = repository / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{name}\nexit 1\n")
        hook.chmod(0o700)
    assert trees.run("echo x > c.txt").commit is not None
    assert list(tmp_path.glob("ran-*")) == []


def test_the_diff_can_be_applied(trees: Trees, tmp_path: Path) -> None:
    """Binary content, modes, renames and odd names survive."""
    script = (
        "printf '\\000\\001\\377' > blob; mv a.txt 'with space.txt'; printf x > 'ünï'; printf x > 'q\"uote';"
        " chmod +x sub/b.txt; ln -s sub link; : > empty"
    )
    changes = trees.run(script)
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(trees.repository), str(other))
    (tmp_path / "patch").write_text(changes.diff)
    git(other, "apply", "--index", str(tmp_path / "patch"))
    assert git(other, "write-tree") == git(trees.repository, "rev-parse", f"{changes.branch}^{{tree}}")


def test_a_long_diff_is_cut_and_says_so(trees: Trees) -> None:
    """The result keeps whole lines up to the limit."""
    trees.set(diff_max_bytes=2000)
    changes = trees.run("seq 100000 > long.txt; printf '\\033%.0s' $(seq 3000) > escapes")
    assert changes.diff_truncated
    assert changes.insertions == 100_001
    assert changes.diff.endswith("\n")
    assert len(msgspec.json.encode(changes.diff)) <= 2002


@given(st.text(), st.integers(min_value=0, max_value=200))
def test_bounded_keeps_whole_lines_within_the_limit(text: str, limit_bytes: int) -> None:
    """For any text, what is kept is a prefix within the limit, and complete if nothing is missing."""
    data = text.encode(errors="replace")
    kept, cut = bounded(data, limit_bytes)
    assert data.decode().startswith(kept)
    assert len(msgspec.json.encode(kept)) - 2 <= limit_bytes
    assert cut == (kept != data.decode())
    assert not cut or kept == "" or kept.endswith("\n")


def test_a_rerun_starts_from_a_clean_worktree(trees: Trees, repository: Path) -> None:
    """Nothing of a crash is left: files, commits, a lock on the branch, an incomplete worktree."""
    job_id = new_job_id()
    with pytest.raises(CommandFailed):
        trees.task("echo x > left.txt; git add .; git commit -qm half; echo y > dirt; exit 1", job_id).run()
    (repository / ".git" / "refs" / "heads" / "3ox" / f"{job_id}.lock").touch()
    (trees.folder / job_id / ".git").unlink()
    changes = trees.task("ls > seen.txt", job_id).run().changes
    assert git(repository, "show", f"{changes.branch}:seen.txt").splitlines() == ["a.txt", "seen.txt", "sub"]
    assert git(repository, "log", "--format=%s", f"main..{changes.branch}").splitlines() == ["ls > seen.txt"]
    assert trees.left() == []


def test_kept_worktrees_are_bounded(trees: Trees, repository: Path) -> None:
    """The newest stay; of the others the branch stays if it alone leads to a commit."""
    trees.set("worktrees_kept = 2")
    committed = Path(trees.fail("echo x > x; git add x; git commit -qm mine; exit 1").path).name
    failed = [Path(trees.fail(f"echo {number} > n; exit 1").path).name for number in range(4)]
    trees.run("true")
    assert trees.left() == sorted([*failed[2:], *(f"{name}.base" for name in failed[2:])])
    assert set(trees.branches()) == {"main", f"3ox/{committed}", *(f"3ox/{name}" for name in failed[2:])}
    assert git(repository, "worktree", "list").count("\n") == 2


def test_a_cancelled_task_keeps_its_worktree(trees: Trees) -> None:
    """The changes are described after the command; no git process is left."""
    run = trees.task("echo x > x; echo ready; sleep 300").start()
    eventually(lambda: run.reporter.text("out") == "ready\n")
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled) as caught:
        run.finish()
    assert caught.value.result.changes.files == 1  # type: ignore[attr-defined]
    assert run.context.stopped == "stopped after SIGTERM"
    assert run.processes() == []
    assert (trees.folder / run.job.job_id / "x").exists()


def test_a_program_that_does_not_exist_leaves_no_worktree(trees: Trees, configure: Configure) -> None:
    """A refused task leaves nothing behind."""
    trees.loaded = configure(
        f'[projects.demo]\npath = "{trees.repository}"\ncommand = ["no-such-program"]\nworktree = true\n'
    )
    with pytest.raises(JobRefused):
        trees.task("x").run()
    assert trees.left() == []
    assert trees.branches() == ["main"]


def test_tasks_of_one_repository_at_the_same_time(trees: Trees) -> None:
    """Six tasks at once do not disturb each other."""
    runs = [trees.task(f"echo {number} > file-{number}").start() for number in range(6)]
    found = [run.finish(30.0).changes for run in runs]
    assert [change.files for change in found] == [1] * 6
    assert len(trees.branches()) == 7
    assert threading.active_count() < 20


def test_another_repository_in_the_environment_is_not_touched(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was started from a git hook has GIT_DIR set."""
    other = make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    trees.run("echo x > x")
    monkeypatch.undo()
    assert git(other, "branch", "--format=%(refname:short)") == "main"


def test_what_git_does_for_a_task_is_found_when_its_worker_is_lost(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning up after a killed worker also stops its git, which would write beside the next attempt."""
    seen, folder = tmp_path / "seen", tmp_path / "bin"
    folder.mkdir()
    watched = folder / "git"
    watched.write_text(
        f'#!/bin/sh\necho "$BRIDGE_JOB_ID $BRIDGE_WORKER_ID" >> {seen}\nexec {require_tool("git")} "$@"\n'
    )
    watched.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    run = trees.task("echo x > x")
    run.run()
    assert set(seen.read_text().splitlines()) == {f"{run.job.job_id} {run.context.worker_id}"}
