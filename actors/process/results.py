"""Results of ``shell.cmd`` and ``task.custom``."""

from __future__ import annotations

from msgspec import Struct


class CommandResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of ``shell.cmd`` and ``task.custom``.

    Attributes:
        exit_status: Exit status of the command; 128 + signal number if a signal ended it.
        signal: Name of that signal, or None.
        stdout_tail: End of its standard output; the job's output has all of it.
        stderr_tail: End of its standard error.
        duration_s: Its run time, in seconds.
        truncated: Whether a part of the job's output is missing because of ``output_max_bytes``.
    """

    exit_status: int
    signal: str | None = None
    stdout_tail: str = ""
    stderr_tail: str = ""
    duration_s: float = 0.0
    truncated: bool = False


class Changes(Struct, frozen=True, kw_only=True):
    """The changes of a task; part of the result of ``task.custom``.

    Attributes:
        branch: Branch with the changes; None if there are none or they are not committed.
        base: The commit that the task started from.
        commit: Head of the branch; None if nothing was committed.
        path: Path of the worktree if it was kept.
        host: Host of branch and worktree.
        files: Number of changed files.
        insertions: Number of added lines.
        deletions: Number of removed lines.
        diff: Patch for ``git apply``; its beginning if ``diff_truncated``.
        diff_truncated: Whether a part of the diff is missing because of ``diff_max_bytes``.
    """

    branch: str | None
    base: str
    commit: str | None
    path: str | None
    host: str
    files: int
    insertions: int
    deletions: int
    diff: str
    diff_truncated: bool = False


class TaskResult(CommandResult, frozen=True, kw_only=True, omit_defaults=True):
    """Result of a task.

    Attributes:
        changes: What it changed in its worktree; None for a project without worktrees.
    """

    changes: Changes | None = None


class TrackResult(Struct, frozen=True, kw_only=True):
    """Result of a job that tracked a process.

    Attributes:
        pid: Its pid.
        host: Its host.
        ended: Always true; the exit status is available to the parent of the process only.
        followed_s: How long it was tracked, in seconds.
        cpu_s: CPU time at the last measurement, in seconds; None if it was never measured.
        rss_max_bytes: Highest resident memory that was measured.
    """

    pid: int
    host: str
    ended: bool = True
    followed_s: float
    cpu_s: float | None = None
    rss_max_bytes: int | None = None


#: With a worktree or without one, or that of a process that ``3ox track`` follows.
AnyTaskResult = TaskResult | CommandResult | TrackResult
