"""Settings of projects, schedules, policy and job types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ops.settings.kinds import Name, Seconds, Table


class ProjectSettings(Table, frozen=True, kw_only=True):
    """A project for ``3ox run``: ``[projects.NAME]``."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="Working directory of the command; ~ is expanded, a relative path starts at the"
            " workspace.",
        ),
    ]
    command: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="Argument list; {task} in an argument is replaced by the task, {task_file} by the"
            " path of a file that contains it.",
        ),
    ]
    stdin: Annotated[
        Literal["none", "task"],
        Meta(description="Standard input of the command: `task` is the task, `none` is empty."),
    ] = "none"
    timeout_s: Annotated[
        Seconds | None,
        Meta(description="Timeout of one attempt, in seconds; that of the job type when absent."),
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Maximum number of tasks that run at the same time, on all hosts together; no limit"
            " when absent."
        ),
    ] = None
    env: Annotated[dict[str, str], Meta(description="Environment variables added for the command.")] = field(
        default_factory=dict
    )
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description="Number of retries after the first attempt; that of the job type when absent."),
    ] = None
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None,
        Meta(description="Priority from 1 (first) to 10 (last); 5 when absent."),
    ] = None
    worktree: Annotated[
        bool, Meta(description="Run each task in its own git worktree on the branch 3ox/JOB_ID.")
    ] = False
    base: Annotated[
        str, Meta(min_length=1, description="Branch, tag or commit from which a worktree starts.")
    ] = "HEAD"
    worktrees_kept: Annotated[
        int,
        Meta(description="Number of worktrees of failed tasks that are kept (the latest).", ge=0, le=1000),
    ] = 10


class ScheduleSettings(Table, frozen=True, kw_only=True):
    """A job submitted by the scheduler: ``[[schedule]]`` with either ``cron`` or ``every``."""

    id: Annotated[Name, Meta(description="Unique name of the schedule: letters, digits and . _ @ : + -.")]
    job: Annotated[
        dict[str, Any],
        Meta(
            description="The job to submit: job_type, payload, and optionally project, priority,"
            " max_retries, ..."
        ),
    ]
    cron: Annotated[
        str | None,
        Meta(
            description="Cron expression (minute, hour, day of month, month, day of week) such as '30 2 * *"
            " *', or @daily."
        ),
    ] = None
    every: Annotated[
        float | str | None,
        Meta(
            description="Interval in seconds, or as '90s', '5m', '1h30m', '1d'; counted from 1970-01-01"
            " 00:00 UTC."
        ),
    ] = None
    timezone: Annotated[
        str, Meta(description="Time zone of `cron`, such as Europe/Berlin.", min_length=1)
    ] = "UTC"
    missed: Annotated[
        Literal["run", "skip"],
        Meta(
            description="What happens to a missed run: `run` starts it late, `skip` records it and leaves"
            " it out."
        ),
    ] = "run"
    latest_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="Longest delay of a run, in seconds; when absent, unlimited for `run` and 5 s for"
            " `skip`."
        ),
    ] = None


class PolicyRule(Table, frozen=True, kw_only=True):
    """A rule of the access policy: ``[[policy]]``; the first rule that matches decides.

    All fields but ``effect`` are shell patterns: ``*`` any text, ``?`` one character, ``[ab]`` one of these.
    """

    effect: Annotated[
        Literal["allow", "deny", "approve"],
        Meta(description="Effect on the job; `approve` holds it until it is approved."),
    ]
    source: Annotated[
        str,
        Meta(
            description="Interface that submitted the job: cli, shell, rest, telegram, webhook, station,"
            " clock, ..."
        ),
    ] = "*"
    job_type: Annotated[str, Meta(description="Job type.")] = "*"
    actor: Annotated[
        str, Meta(description="Who submitted the job: login name, token name, chat ID or webhook name.")
    ] = "*"
    project: Annotated[
        str, Meta(description="Project; a value other than * matches only jobs of a project.")
    ] = "*"
    command: Annotated[
        str,
        Meta(description="For shell.cmd: the command line, or its program alone."),
    ] = "*"


class TypeOverrides(Table, frozen=True, kw_only=True):
    """Limits of one job type: ``[types."JOB.TYPE"]``; absent ones have the general default."""

    timeout_s: Annotated[Seconds | None, Meta(description="Timeout of one attempt, in seconds.")] = None
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description="Number of retries after the first attempt."),
    ] = None
    backoff_min_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Upper bound of the delay before the first retry, in seconds."),
    ] = None
    backoff_max_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Upper bound of the delay before any retry, in seconds."),
    ] = None


class TypeSettings(Table, frozen=True, kw_only=True):
    """The resolved limits of one job type."""

    timeout_s: float
    max_retries: int
    backoff_min_s: float
    backoff_max_s: float
