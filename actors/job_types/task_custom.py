"""``task.custom``: a task for a project. The actor is ``actors.task_custom.task_custom``."""

from __future__ import annotations

from msgspec import Struct

from actors.job_types.shell_cmd import CommandResult
from middleware.job.types import JOB_TYPES, NO_RETRY, JobType, NonEmpty, Payload
from ops.settings.work import TypeOverrides


class TaskCustomPayload(Payload, frozen=True, kw_only=True):
    """A task for a project's command, for instance a coding agent."""

    task: NonEmpty


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


JOB_TYPES.add(
    JobType(
        name="task.custom",
        summary="A task for a project, if the policy allows it.",
        payload=TaskCustomPayload,
        result=TaskResult | TrackResult,
        actor="actors.task_custom:task_custom",
        needs_project=True,
        limits=TypeOverrides(timeout_s=3600.0, max_retries=NO_RETRY),
        runs_programs=True,
        delivers=True,
        title=("task",),
        example={"task": "Add a test for the parser."},
    )
)
