"""What is to be done, when, how, and by whose leave: projects, schedules, policy, job types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ops.settings.kinds import Name, Seconds, Table


class ProjectSettings(Table, frozen=True, kw_only=True):
    """A project that ``3ox run`` can be given a task for: ``[projects.NAME]``."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where the command runs; ~ is expanded, relative to the workspace.",
        ),
    ]
    command: Annotated[
        list[str],
        Meta(min_length=1, description="Argument list; {task} in any argument is replaced by the task."),
    ]
    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one attempt; the type's if absent.")] = (
        None
    )
    concurrency: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Tasks that run at a time, all hosts together.")
    ] = None
    env: Annotated[dict[str, str], Meta(description="Added to the environment of the command.")] = field(
        default_factory=dict
    )
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description="Attempts after the first; the type's if absent."),
    ] = None
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None, Meta(description="1 is first, 10 last; 5 if absent.")
    ] = None
    worktree: Annotated[
        bool, Meta(description="Run each task in a git worktree and branch of its own, 3ox/JOB_ID.")
    ] = False
    base: Annotated[
        str, Meta(min_length=1, description="Branch, tag or commit that a worktree starts from.")
    ] = "HEAD"
    worktrees_kept: Annotated[
        int, Meta(description="Worktrees of failed tasks that are kept, the last ones.", ge=0, le=1000)
    ] = 10


class ScheduleSettings(Table, frozen=True, kw_only=True):
    """What the clock starts, and when: ``[[schedule]]``; either ``cron`` or ``every``."""

    id: Annotated[Name, Meta(description="Of this schedule; letters, digits and . _ @ : + -.")]
    job: Annotated[
        dict[str, Any],
        Meta(description="The job: job_type, payload, and if wanted project, priority, max_retries, ..."),
    ]
    cron: Annotated[
        str | None,
        Meta(description="Minute, hour, day of month, month, day of week: '30 2 * * *'; or @daily, ..."),
    ] = None
    every: Annotated[
        float | str | None,
        Meta(description="Seconds, or '90s', '5m', '1h30m', '1d'; counted from 1970-01-01 00:00 UTC."),
    ] = None
    timezone: Annotated[str, Meta(description="Whose wall clock cron means.", min_length=1)] = "UTC"
    missed: Annotated[
        Literal["run", "skip"],
        Meta(description="A run that could not be started in time is run late, or left out and recorded."),
    ] = "run"
    latest_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="A run starts at most so late; when absent, at any time for run, 5 s for skip."),
    ] = None


class PolicyRule(Table, frozen=True, kw_only=True):
    """Who may have what done: ``[[policy]]``; the first rule that fits decides.

    The patterns are those of file names: ``*`` any text, ``?`` one character, ``[ab]`` one of these.
    """

    effect: Annotated[
        Literal["allow", "deny", "approve"],
        Meta(description="What becomes of the job; approve holds it until somebody lets it go."),
    ]
    source: Annotated[str, Meta(description="Door: cli, shell, rest, telegram, webhook, station, ...")] = "*"
    job_type: Annotated[str, Meta(description="Type of the job.")] = "*"
    actor: Annotated[str, Meta(description="Login, token name, chat id or webhook name.")] = "*"
    project: Annotated[str, Meta(description="Project; with it, only jobs of a project fit.")] = "*"
    command: Annotated[
        str,
        Meta(description="Of shell.cmd: the command line, or its program alone."),
    ] = "*"


class TypeOverrides(Table, frozen=True, kw_only=True):
    """What ``[types."JOB.TYPE"]`` may set; an absent one is the general default."""

    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one attempt.")] = None
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None, Meta(description="Attempts after the first.")
    ] = None
    backoff_min_s: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Longest wait before the first retry.")
    ] = None
    backoff_max_s: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Longest wait before any retry.")
    ] = None


class TypeSettings(Table, frozen=True, kw_only=True):
    """How jobs of one type are run, every field filled."""

    timeout_s: float
    max_retries: int
    backoff_min_s: float
    backoff_max_s: float


#: Every job type, and where it differs from the general defaults: a command may have changed the world
#: before it failed, so it is not run again unless somebody says so.
TYPE_DEFAULTS: dict[str, TypeOverrides] = {
    "ask": TypeOverrides(max_retries=2),
    "ingest.file": TypeOverrides(max_retries=6),
    "telegram": TypeOverrides(),
    "rest.request": TypeOverrides(),
    "shell.cmd": TypeOverrides(max_retries=0),
    "heartbeat": TypeOverrides(timeout_s=30.0, max_retries=0),
    "task.custom": TypeOverrides(timeout_s=3600.0, max_retries=0),
    # A day of attempts, half an hour apart at most: a receiver that is down comes back.
    "deliver": TypeOverrides(timeout_s=120.0, max_retries=100, backoff_max_s=1800.0),
}
