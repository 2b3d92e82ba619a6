"""``shell.cmd``: run a command given as an argument list; no shell parses it."""

from __future__ import annotations

from actors.context import settings
from actors.job_types.shell_cmd import ShellCmdPayload
from actors.process.command import run_command
from actors.process.results import CommandResult


def shell_cmd(payload: ShellCmdPayload) -> CommandResult:
    """Run the command in ``cwd``, relative to ``WORKDESK`` (the default).

    It inherits the environment variables in the setting ``shell_env``.

    Raises:
        CommandFailed: Its exit status is not 0.
        JobRefused: The program or the directory does not exist.
    """
    desk = settings().workspace.workdesk
    if payload.cwd is None:
        desk.mkdir(parents=True, exist_ok=True)
    return run_command(
        payload.argv,
        cwd=desk if payload.cwd is None else desk / payload.cwd,
        env=payload.env,
        stdin=payload.stdin,
    )
