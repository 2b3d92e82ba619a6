"""``shell.cmd``: a command, as an argument list. The actor is ``actors.shell_cmd.shell_cmd``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from middleware.job.types import JOB_TYPES, NO_RETRY, JobType, Payload
from ops.settings.work import TypeOverrides


class ShellCmdPayload(Payload, frozen=True, kw_only=True):
    """A command, as an argument list; it is not parsed by a shell."""

    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None


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


JOB_TYPES.add(
    JobType(
        name="shell.cmd",
        summary="A command to run, if the policy allows it.",
        payload=ShellCmdPayload,
        result=CommandResult,
        actor="actors.shell_cmd:shell_cmd",
        limits=TypeOverrides(max_retries=NO_RETRY),
        runs_programs=True,
        runs_argv=True,
        title=("argv",),
        example={"argv": ["uname", "-a"]},
    )
)
