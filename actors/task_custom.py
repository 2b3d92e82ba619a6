"""``task.custom``: give a task to a project's command, for instance a coding agent."""

from __future__ import annotations

import difflib
from pathlib import Path

from actors.child import CommandResult
from actors.command import run_command
from actors.context import current_job, settings
from middleware.job.payloads import TaskCustomPayload
from ops.errors import JobRefused
from ops.settings import ProjectSettings

PLACEHOLDER = "{task}"


def task_custom(payload: TaskCustomPayload) -> CommandResult:
    """Run the project's command in the project's directory, ``{task}`` in its arguments replaced by the task.

    The command also finds the task in ``BRIDGE_TASK`` and the project in ``BRIDGE_PROJECT``. Its lines
    ``::progress NN message`` become progress.

    Raises:
        CommandFailed: It ended with a status other than 0.
        JobRefused: There is no such project, program or directory.
    """
    name = current_job().job.project
    project = _find(name)
    return run_command(
        [argument.replace(PLACEHOLDER, payload.task) for argument in project.command],
        cwd=Path(project.path),
        env={**project.env, "BRIDGE_PROJECT": str(name), "BRIDGE_TASK": payload.task},
        progress=True,
    )


def _find(name: str | None) -> ProjectSettings:
    loaded = settings()
    projects = loaded.settings.projects
    if name is not None and name in projects:
        return projects[name]
    near = difflib.get_close_matches(name or "", projects, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise JobRefused(
        f"there is no project {name!r}.",
        remedy=f"{hint}Add it as [projects.NAME] with path and command to {loaded.workspace.settings_file}.",
    )
