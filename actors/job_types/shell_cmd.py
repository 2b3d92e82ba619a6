"""``shell.cmd``: a command, as an argument list. The actor is ``actors.shell_cmd.shell_cmd``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from middleware.job.types import JOB_TYPES, NO_RETRY, JobType, Payload
from ops.settings.work import TypeOverrides


class ShellCmdPayload(Payload, frozen=True, kw_only=True):
    """A command, as an argument list; it is not parsed by a shell.

    Attributes:
        argv: Program and arguments.
        cwd: Directory, relative to WORKDESK.
        env: Environment variables that are added.
        stdin: Standard input, as text.
        stdin_base64: Standard input that is not text, as base64; instead of ``stdin``.
    """

    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None
    stdin_base64: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}$")] | None = None


JOB_TYPES.add(
    JobType(
        name="shell.cmd",
        summary="A command to run, if the policy allows it.",
        payload=ShellCmdPayload,
        result="actors.process.results:CommandResult",
        actor="actors.shell_cmd:shell_cmd",
        limits=TypeOverrides(max_retries=NO_RETRY),
        runs_programs=True,
        runs_argv=True,
        title=("argv",),
        result_texts=("stdout_tail", "stderr_tail"),
        example={"argv": ["uname", "-a"]},
    )
)
