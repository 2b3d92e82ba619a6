"""``shell.cmd``: run a command, an argument list that no shell ever parses."""

from __future__ import annotations

from actors.context import settings
from actors.process.child import CommandResult
from actors.process.command import run_command
from middleware.job.types import ShellCmdPayload


def shell_cmd(payload: ShellCmdPayload) -> CommandResult:
    """Run the command.

    It inherits the variables that the setting ``shell_env`` names, and runs in ``cwd``; a relative one is
    relative to ``WORKDESK``, which is also the place when none is given.

    Raises:
        CommandFailed: It ended with a status other than 0.
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
