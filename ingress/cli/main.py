"""The command line ``3ox``: finds the command, loads its module only, turns errors into exit codes.

A command is a click command in the ``COMMANDS`` list of its module; it returns its exit code (None is 0)
and raises ``BridgeError`` for what a user can mend. To add one, write it there and name it here.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TextIO

import click

from ingress.core.version import version
from ops.errors import BridgeError, UsageProblem

#: Command -> module of ``ingress.cli`` that holds it; the order is that of ``3ox --help``.
MODULES = {
    "up": "services",
    "down": "services",
    "status": "status",
    "ask": "submit",
    "run": "submit",
    "sh": "submit",
    "drop": "drop",
    "jobs": "jobs",
    "logs": "jobs",
    "receipt": "jobs",
    "export": "export",
    "verify": "verify",
    "wait": "actions",
    "cancel": "actions",
    "retry": "actions",
    "undo": "drop",
    "track": "track_process",
    "approve": "actions",
    "deny": "actions",
    "sessions": "sessions",
    "worker": "services",
    "serve": "daemons",
    "rest": "daemons",
    "telegram": "daemons",
    "clock": "daemons",
    "shell": "daemons",
    "config": "services",
    "token": "token",
    "doctor": "services",
    "demo": "daemons",
}

PROGRAM = "3ox"
#: Set by the shell when it wants completions: ``eval "$(_3OX_COMPLETE=bash_source 3ox)"``.
COMPLETION_VARIABLE = "_3OX_COMPLETE"
#: What a shell shows for a program that a closed pipe has ended (128 + SIGPIPE).
EXIT_BROKEN_PIPE = 141


class Commands(click.Group):
    """The commands by name; a module is imported when one of its commands is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give all names, in the order of the help page."""
        del ctx
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and give the command, or None for a name that is not known."""
        del ctx
        if cmd_name not in MODULES:
            return None
        from importlib import import_module

        commands: list[click.Command] = import_module(f"ingress.cli.{MODULES[cmd_name]}").COMMANDS
        return next(command for command in commands if command.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, the summary of each whole and not cut at the edge of the page."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(limit=1000)) for name, command in found if command is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self,
        ctx: click.Context,
        args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name.

        Raises:
            UsageProblem: There is none; the remedy names the nearest.
        """
        name = args[0]
        if name not in MODULES and not name.startswith("-") and not ctx.resilient_parsing:
            from ingress.cli.shared import nearest

            raise UsageProblem(
                f"there is no command {name!r}.",
                remedy=f"{nearest(name, MODULES)}'{PROGRAM} --help' lists all.",
            )
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the job failed or was cancelled, 2 wrong use or settings, 3 the store is "
    "unreachable, 4 no such job, 124 a wait ran out, 130 interrupted. '3ox sh' exits as its command did.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> int:
    """One bridge between every way you command a machine and the workers that carry it out."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return UsageProblem.exit_code
    return 0


def run(arguments: list[str]) -> int:
    """Carry out one command line and give its exit code.

    Args:
        arguments: What follows the program's name.
    """
    _prepare_streams()
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (raised again if it is none of those known)
        code = exit_code_for(error)
    return code


def exit_code_for(error: BaseException) -> int:
    """Tell on stderr what has ended a command and give the exit code; the one place where errors become text.

    Raises:
        BaseException: The error itself, if it is none that a command may end with: a bug.
    """
    if isinstance(error, BridgeError):
        return _report(error.message, error.remedy, error.exit_code)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 128 + getattr(error, "signal_number", signal.SIGINT)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = PROGRAM if context is None else context.command_path
        message = error.format_message()
        message += "" if message.endswith((".", "?")) else "."
        return _report(message, f"See '{path} --help'.", UsageProblem.exit_code)
    if isinstance(error, BrokenPipeError):
        _silence_streams()
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError):
        _silence_streams(sys.stdout)
        place = "" if error.filename is None else f" ({error.filename})"
        return _report(f"{error.strerror or error}{place}.", "", BridgeError.exit_code)
    raise error


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Started with the descriptor closed, as some service managers do.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 (open to the end)
        # A job's text may hold what the terminal's encoding cannot say; that must not end the command.
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _invoke(arguments: list[str]) -> int:
    completion = os.environ.get(COMPLETION_VARIABLE, "")
    if completion:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, PROGRAM, COMPLETION_VARIABLE, completion)
    with cli.make_context(PROGRAM, arguments) as context:
        exit_code: int | None = cli.invoke(context)
        return 0 if exit_code is None else exit_code


def _report(message: str, remedy: str, exit_code: int) -> int:
    from ingress.cli.shared import note

    try:
        note(f"{message} {remedy}".strip())
    except OSError:
        _silence_streams()
    return exit_code


def _silence_streams(*streams: TextIO) -> None:
    # The interpreter flushes them once more while it ends; let that go nowhere.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams or (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
