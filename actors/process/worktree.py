"""A git worktree and branch for each task of a project.

    .3ox/worktrees/PROJECT/JOB_ID         the files, while the task runs and after it has failed
    .3ox/worktrees/PROJECT/JOB_ID.base    the commit it started from
    .3ox/worktrees/PROJECT/JOB_ID.lock    locked by the process that runs the task
    3ox/JOB_ID                            the branch; after success the changes are committed to it

The files are compared with their base commit through a separate index: the task's own index, commits and
branches are not touched, and untracked files count.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from actors.process.git import Git, GitFailed
from actors.process.results import Changes
from middleware.job.ids import ID_LENGTH
from ops.errors import JobFailed, JobRefused
from ops.lockfile import try_lock

#: Author of the commit of uncommitted changes, unless git has one configured on this host.
_NAME, _EMAIL = "CMD.BRIDGE", "3ox@localhost"
_SUBJECT_MAX_CHARS = 72
#: Attempts of ``git worktree add``, which fails when tasks of one repository start at the same moment.
_ADD_TRIES = 5


class Worktree:
    """The worktree of one job.

    Parameters:
        repository: The project's directory in a git repository.
        folder: Folder of the project's worktrees.
        job_id: Name of worktree and branch.
        marks: See ``Git``.
    """

    def __init__(
        self, repository: Path, folder: Path, job_id: str, *, marks: Mapping[str, str] | None = None
    ) -> None:
        self.path = folder / job_id
        self.branch = f"3ox/{job_id}"
        self.repository = Git(repository, marks)
        self.inside = Git(self.path, marks)
        self._base_file = folder / f"{job_id}.base"
        self._lock_file = folder / f"{job_id}.lock"
        self._folder = folder

    def stop(self) -> None:
        """Stop the running git command; called from another thread."""
        self.repository.stop()
        self.inside.stop()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the worktree: within this block, no other process uses or removes it.

        Raises:
            JobFailed: Another process holds it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = try_lock(self._lock_file)
        if fd is None:
            raise JobFailed(
                f"Another attempt of this job is still using {self.path}.",
                remedy="Retry the job when that attempt has ended.",
            )
        try:
            yield
        finally:
            self._lock_file.unlink(missing_ok=True)
            os.close(fd)

    def in_use(self) -> bool:
        """Return whether a process holds the lock."""
        if not self._lock_file.exists():
            return False
        fd = try_lock(self._lock_file)
        if fd is not None:
            os.close(fd)
        return fd is None

    def begin(self, base: str) -> Path:
        """Create a clean worktree on a new branch; that of an earlier attempt is removed.

        Args:
            base: Branch, tag or commit to start from.

        Returns:
            The directory in it that corresponds to the project's.

        Raises:
            JobRefused: The project is not in a git repository, or the base does not exist.
            GitFailed: A git command failed.
        """
        prefix = self._prefix()
        try:
            commit = self.repository("rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}")
        except GitFailed as error:
            raise JobRefused(
                f"The worktree cannot start from {base!r}: {self.repository.directory} has no such commit.",
                remedy="Create a first commit, or correct 'base' of the project in 3ox.toml.",
            ) from error
        self.remove()
        # A git that was killed while writing the branch leaves this lock; no other process writes that
        # branch.
        ref = Path(self.repository("rev-parse", "--path-format=absolute", "--git-path", self._ref()))
        ref.with_name(ref.name + ".lock").unlink(missing_ok=True)
        self._base_file.write_text(commit)
        self._add(commit)
        return self.path / prefix

    def _add(self, commit: str) -> None:
        add = ("worktree", "add", "--quiet", "--no-track", "--force", "--force")
        for left in reversed(range(_ADD_TRIES)):
            try:
                self.repository(*add, "-B", self.branch, self.path, commit)
            except GitFailed as error:
                # Git takes no lock: it fails on the partly written data of another `git worktree`.
                if left == 0 or "/worktrees/" not in error.message:
                    raise
            else:
                return

    def _ref(self) -> str:
        return f"refs/heads/{self.branch}"

    def _prefix(self) -> str:
        try:
            return self.repository("rev-parse", "--show-prefix")
        except GitFailed as error:
            raise JobRefused(
                f"{str(self.repository.directory)!r} is not in a git repository: {error.message}",
                remedy="Run 'git init' and create a first commit there, or remove worktree = true.",
            ) from error

    @property
    def base(self) -> str | None:
        """The commit that the worktree started from; None without a worktree."""
        try:
            return self._base_file.read_text() if self.path.is_dir() else None
        except FileNotFoundError:
            return None

    def diff(self, limit_bytes: int | None = None) -> bytes:
        """Return the difference between the base commit and the current files.

        Args:
            limit_bytes: Maximum number of bytes to read.
        """
        return self._diff(self._base(), self._written(), limit_bytes)

    def _base(self) -> str:
        base = self.base
        if base is None:
            raise JobFailed(
                f"The worktree {self.path} no longer exists.", remedy="The task must not remove it."
            )
        return base

    def _diff(self, base: str, tree: str, limit_bytes: int | None) -> bytes:
        return self.inside.raw(*DIFF, base, tree, limit_bytes=limit_bytes)

    def _written(self) -> str:
        """Write the current files to the repository as a tree, and return its id."""
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as own:
            index = Path(own) / "index"
            # With a copy of the worktree's index, unchanged files are not read again.
            with contextlib.suppress(OSError):
                known = self.inside("rev-parse", "--path-format=absolute", "--git-path", "index")
                shutil.copyfile(known, index)
            environ = {"GIT_INDEX_FILE": str(index)}
            self.inside("add", "--all", "--", ":/", environ=environ)
            return self.inside("write-tree", environ=environ)

    def describe(self, limit_bytes: int, *, kept: bool, commit: str | None = None) -> Changes:
        """Return the changes.

        Args:
            limit_bytes: Maximum size of the diff as JSON text.
            kept: Whether the worktree is kept.
            commit: The commit of the changes.
        """
        base, tree = self._base(), self._written()
        files = insertions = deletions = 0
        for line in self.inside("diff", "--numstat", "--no-renames", base, tree).splitlines():
            added, removed, _ = line.split("\t", 2)
            files += 1
            insertions += int(added) if added.isdecimal() else 0
            deletions += int(removed) if removed.isdecimal() else 0
        text, truncated = bounded(self._diff(base, tree, limit_bytes + 1), limit_bytes)
        return Changes(
            branch=None if commit is None else self.branch,
            base=base,
            commit=commit,
            path=str(self.path) if kept else None,
            host=socket.gethostname(),
            files=files,
            insertions=insertions,
            deletions=deletions,
            diff=text,
            diff_truncated=truncated,
        )

    def commit(self, task: str, job_id: str) -> str | None:
        """Commit all changes to the branch, whatever branch the task has checked out.

        Returns:
            Head of the branch; None if nothing differs from the base commit.
        """
        tree, head = self._written(), self.inside("rev-parse", "HEAD")
        if tree != self.inside("rev-parse", f"{head}^{{tree}}"):
            message = f"{_subject(task)}\n\n3ox job {job_id}\n"
            arguments = ("commit-tree", tree, "-p", head, "-m", message)
            head = self.inside(*arguments, environ=self._author())
        if head == self._base():
            return None
        self.inside("update-ref", self._ref(), head)
        return head

    def _author(self) -> dict[str, str]:
        if self.inside.succeeds("config", "user.email"):
            return {}
        who = ("GIT_AUTHOR", "GIT_COMMITTER")
        return {f"{one}_NAME": _NAME for one in who} | {f"{one}_EMAIL": _EMAIL for one in who}

    def remove(self, *, branch: bool = False) -> None:
        """Remove the worktree in whatever state it is; with ``branch``, the branch too."""
        with contextlib.suppress(GitFailed):
            self.repository("worktree", "remove", "--force", "--force", self.path)
        if os.path.lexists(self.path):
            shutil.rmtree(self.path, onerror=_insist)
            # Only when needed: a worktree that another task is adding right now may look stale too.
            with contextlib.suppress(GitFailed):
                self.repository("worktree", "prune")
        self._base_file.unlink(missing_ok=True)
        if branch:
            with contextlib.suppress(GitFailed):
                self.repository("update-ref", "-d", self._ref())

    def forget(self) -> None:
        """Remove the worktree, and the branch too unless it has commits that no other reference reaches."""
        unique: str | None = None
        with contextlib.suppress(GitFailed):
            others = ("--single-worktree", f"--exclude={self._ref()}", "--all")
            unique = self.repository("rev-list", "--max-count=1", self._ref(), "--not", *others)
        self.remove(branch=unique == "")


#: A diff that can be applied anywhere, made without running programs configured in the repository.
DIFF = (
    "diff",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--full-index",
    "--binary",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


def bounded(diff: bytes, limit_bytes: int) -> tuple[str, bool]:
    """Return the complete lines of a diff that fit into ``limit_bytes`` of JSON, and whether it was cut."""
    import msgspec

    text, cut = diff.decode(errors="replace"), False
    while (excess := len(msgspec.json.encode(text)) - 2 - limit_bytes) > 0:
        # A control character takes up to six bytes in JSON, so a sixth of the excess may suffice.
        text, cut = text[: max(0, len(text) - max(1, excess // 6))], True
    return (text[: text.rfind("\n") + 1], True) if cut else (text, False)


def prune(repository: Path, folder: Path, keep: int) -> int:
    """Remove the oldest worktrees that no task uses.

    Args:
        repository: The project's directory.
        folder: Folder of its worktrees.
        keep: Number of unused worktrees to keep.

    Returns:
        How many were removed.
    """
    found: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        if len(path.name) == ID_LENGTH:
            # Another process may remove it at this moment.
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path))
    kept = removed = 0
    for _, path in sorted(found, reverse=True):
        old = Worktree(repository, folder, path.name)
        if old.in_use():
            continue
        kept += 1
        if kept > keep:
            with old.held():
                old.forget()
            removed += 1
    return removed


def _subject(task: str) -> str:
    lines = task.strip().splitlines()
    line = lines[0] if lines else "task"
    return line if len(line) <= _SUBJECT_MAX_CHARS else line[: _SUBJECT_MAX_CHARS - 1] + "…"


def _insist(function: object, path: str, error: object) -> None:
    """Make a read-only directory writable and retry; caches of build tools contain such directories."""
    del error
    with contextlib.suppress(OSError):
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
        if function is os.rmdir:
            Path(path).rmdir()
        elif Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink()
