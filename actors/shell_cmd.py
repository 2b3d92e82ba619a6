"""``shell.cmd``: run a command given as an argument list; no shell parses it."""

from __future__ import annotations

import base64
import binascii

from actors.context import current_job, settings
from actors.job_types.shell_cmd import ShellCmdPayload
from actors.process.command import run_command
from actors.process.results import CommandResult
from ops.errors import JobRefused


def shell_cmd(payload: ShellCmdPayload) -> CommandResult:
    """Run the command in ``cwd``, relative to ``WORKDESK`` (the default).

    It inherits the environment variables in the setting ``shell_env``. If a caller is attached, stdin comes
    from it, and the output goes to it as well.

    Raises:
        CommandFailed: Its exit status is not 0.
        CommandNotStarted: The program does not exist or is not executable.
        JobRefused: The directory does not exist.
    """
    desk = settings().workspace.workdesk
    if payload.cwd is None:
        desk.mkdir(parents=True, exist_ok=True)
    with current_job().attached() as streams:
        return run_command(
            payload.argv,
            cwd=desk if payload.cwd is None else desk / payload.cwd,
            env=payload.env,
            stdin=_stdin(payload),
            streams=streams,
        )


def _stdin(payload: ShellCmdPayload) -> str | bytes | None:
    """Return the standard input in a payload.

    Raises:
        JobRefused: It is not valid.
    """
    if payload.stdin_base64 is None:
        return payload.stdin
    if payload.stdin is not None:
        raise JobRefused("The job has both stdin and stdin_base64.", remedy="Leave out one of them.")
    try:
        return base64.b64decode(payload.stdin_base64, validate=True)
    except binascii.Error as error:
        raise JobRefused(f"stdin_base64 is not valid: {error}.", remedy="Encode it as base64.") from error
