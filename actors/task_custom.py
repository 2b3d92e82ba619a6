"""``task.custom``: run a project's command (a coding agent, for example) with a task; or track a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from actors.context import current_job, settings
from actors.job_types.task_custom import TaskCustomPayload
from actors.process.child import CommandFailed, job_marks
from actors.process.command import run_command
from actors.process.git import GitFailed
from actors.process.results import Changes, CommandResult, TaskResult, TrackResult
from actors.process.task_file import task_file
from actors.process.track import follow_process, tracked_process
from actors.process.worktree import Worktree, prune
from middleware.broker.admission_rules import find_project, fits_argument
from middleware.context import JobInterrupted
from middleware.interrupts import WorkerStopping
from ops.errors import JobRefused, UnknownProject
from ops.logs import get_logger
from ops.settings.load import ProjectSettings
from ops.workspace import Workspace

#: Replaced by the task, and by the path of a file that contains it.
PLACEHOLDER = "{task}"
FILE_PLACEHOLDER = "{task_file}"

log = get_logger(__name__)


def task_custom(payload: TaskCustomPayload) -> CommandResult | TrackResult:
    """Run the project's command in its directory, with ``{task}`` in its arguments replaced by the task.

    ``{task_file}`` is replaced by the path of a file that contains the task; with ``stdin = "task"`` the
    command reads it from standard input. The environment contains the project as ``BRIDGE_PROJECT``, the path
    of the file as ``BRIDGE_TASK_FILE``, and the task as ``BRIDGE_TASK`` unless it is too long. Output lines
    ``::progress NN message`` become progress reports. With ``worktree = true`` the command runs in its own
    git worktree and branch, see ``actors.process.worktree``. A job created by ``3ox track`` follows its
    process instead.

    Raises:
        CommandFailed: The exit status is not 0.
        JobRefused: The project, program, directory or repository does not exist.
    """
    job = current_job().job
    process = tracked_process(job)
    if process is not None:
        return follow_process(process)
    try:
        project = find_project(settings().settings, str(job.project))
    except UnknownProject as error:
        # It was removed from 3ox.toml since the job was submitted, or this host has another 3ox.toml.
        raise JobRefused(error.message, remedy=error.remedy) from error
    if project.worktree:
        return _in_worktree(project, str(job.project), payload.task)
    return _run(project, Path(project.path), payload.task)


def _run(project: ProjectSettings, directory: Path, task: str) -> CommandResult:
    job = current_job().job
    with task_file(settings().workspace.tasks_dir, job.job_id, task) as file:
        env = {**project.env, "BRIDGE_PROJECT": str(job.project), "BRIDGE_TASK_FILE": str(file)}
        if fits_argument(f"BRIDGE_TASK={task}"):
            env["BRIDGE_TASK"] = task
        return run_command(
            [
                argument.replace(FILE_PLACEHOLDER, str(file)).replace(PLACEHOLDER, task)
                for argument in project.command
            ],
            cwd=directory,
            env=env,
            stdin=task if project.stdin == "task" else None,
            progress=True,
        )


def worktree_of(
    workspace: Workspace,
    project: ProjectSettings,
    name: str,
    job_id: str,
    *,
    marks: Mapping[str, str] | None = None,
) -> Worktree:
    """Return the worktree of a task; it may not exist.

    Args:
        workspace: The workspace.
        project: Settings of the project.
        name: Name of the project.
        job_id: Id of the task.
        marks: Environment of git processes; see ``actors.process.child.job_marks``.
    """
    return Worktree(Path(project.path), workspace.worktrees_dir / name, job_id, marks=marks)


def _in_worktree(project: ProjectSettings, name: str, task: str) -> CommandResult:
    context = current_job()
    marks = job_marks(context)
    tree = worktree_of(settings().workspace, project, name, context.job_id, marks=marks)
    # With a listener registered, an interrupt never breaks into git or between these steps.
    with tree.held(), context.on_interrupt(lambda _: tree.stop()):
        try:
            directory = tree.begin(project.base)
        except GitFailed:
            context.check_cancelled()
            raise
        prune(Path(project.path), tree.path.parent, project.worktrees_kept)
        try:
            result = _run(project, directory, task)
        except CommandFailed as error:
            kept = _task_result(error.result, _changes_kept(tree))
            raise CommandFailed(
                error.message, result=kept, remedy=f"Its files are in {tree.path}."
            ) from error
        except JobInterrupted as error:
            if context.interrupt_requested is not WorkerStopping:
                error.result = TaskResult(exit_status=-1, changes=_changes_kept(tree))  # type: ignore[attr-defined]
            raise
        except JobRefused:
            tree.remove(branch=True)
            raise
        commit = tree.commit(task, context.job_id)
        changes = tree.describe(_diff_max_bytes(), kept=False, commit=commit)
        tree.remove(branch=commit is None)
        return _task_result(result, changes)


def _diff_max_bytes() -> int:
    values = settings().settings
    return min(values.diff_max_bytes, values.result_max_bytes // 2)


def _changes_kept(tree: Worktree) -> Changes | None:
    """Return the changes of a failed task; None, with a log line, if git cannot determine them."""
    try:
        return tree.describe(_diff_max_bytes(), kept=True)
    except (GitFailed, OSError) as error:
        log.warning("worktree.unreadable", path=str(tree.path), reason=str(error))
        return None


def _task_result(result: CommandResult, changes: Changes | None) -> TaskResult:
    return TaskResult(
        exit_status=result.exit_status,
        signal=result.signal,
        stdout_tail=result.stdout_tail,
        stderr_tail=result.stderr_tail,
        duration_s=result.duration_s,
        truncated=result.truncated,
        changes=changes,
    )
