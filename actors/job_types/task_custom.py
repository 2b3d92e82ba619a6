"""``task.custom``: a task for a project. The actor is ``actors.task_custom.task_custom``."""

from __future__ import annotations

from middleware.job.types import JOB_TYPES, NO_RETRY, JobType, NonEmpty, Payload
from ops.settings.work import TypeOverrides


class TaskCustomPayload(Payload, frozen=True, kw_only=True):
    """A task for a project's command, for instance a coding agent."""

    task: NonEmpty


JOB_TYPES.add(
    JobType(
        name="task.custom",
        summary="A task for a project, if the policy allows it.",
        payload=TaskCustomPayload,
        result="actors.process.results:AnyTaskResult",
        actor="actors.task_custom:task_custom",
        needs_project=True,
        limits=TypeOverrides(timeout_s=3600.0, max_retries=NO_RETRY),
        runs_programs=True,
        delivers=True,
        title=("task",),
        result_texts=("stdout_tail", "stderr_tail"),
        example={"task": "Add a test for the parser."},
    )
)
