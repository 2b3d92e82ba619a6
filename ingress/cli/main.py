"""The command line ``3ox``: finds the command, loads only its module, turns errors into exit codes.

A command is a click command in the ``COMMANDS`` list of its module; it returns its exit code (None is 0) and
raises ``BridgeError`` for errors a user can fix. To add one, write it there and add it to ``MODULES``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TextIO

import click

from ingress.core.terminal import nearest, note
from ingress.core.version import version
from ops.environment import variable
from ops.errors import BridgeError, UsageProblem, is_disk_full

#: Command -> module of ``ingress.cli`` that holds it; the order is that of ``3ox --help``.
MODULES = {
    "up": "services",
    "down": "services",
    "status": "status",
    "ask": "submit",
    "run": "submit",
    "sh": "submit",
    "submit": "submit",
    "drop": "drop",
    "types": "job_types",
    "jobs": "jobs",
    "logs": "jobs",
    "receipt": "jobs",
    "export": "export",
    "verify": "verify",
    "wait": "actions",
    "cancel": "actions",
    "retry": "actions",
    "undo": "drop",
    "track": "track",
    "approve": "actions",
    "deny": "actions",
    "sessions": "sessions",
    "worker": "services",
    "serve": "daemons",
    "rest": "daemons",
    "telegram": "daemons",
    "clock": "daemons",
    "shell": "daemons",
    "ingress": "daemons",
    "config": "services",
    "token": "token",
    "doctor": "services",
    "demo": "daemons",
}

PROGRAM = "3ox"
#: Set by the shell when it asks for completions: ``eval "$(_3OX_COMPLETE=bash_source 3ox)"``.
COMPLETION_VARIABLE = "_3OX_COMPLETE"
#: 128 + SIGPIPE, as a shell shows for a program that writes to a closed pipe.
EXIT_BROKEN_PIPE = 141


class Commands(click.Group):
    """The commands by name; a command's module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the help page."""
        del ctx
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, from its module; None for an unknown name."""
        del ctx
        if cmd_name not in MODULES:
            return None
        from importlib import import_module

        commands: list[click.Command] = import_module(f"ingress.cli.{MODULES[cmd_name]}").COMMANDS
        return next(command for command in commands if command.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their full summaries, not cut at the edge of the page."""
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
        """Return the command that the arguments name.

        Raises:
            UsageProblem: The command is unknown; the remedy names the nearest.
        """
        name = args[0]
        if name not in MODULES and not name.startswith("-") and not ctx.resilient_parsing:
            raise UsageProblem(
                f"Unknown command {name!r}.",
                remedy=f"{nearest(name, MODULES)}'{PROGRAM} --help' lists the commands.",
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
    epilog="Exit codes: 0 success, 1 the job failed or was cancelled, 2 wrong use or settings, 3 the store is"
    " unavailable, 4 no such job, 124 a wait timed out, 130 interrupted. '3ox sh' exits with its command's"
    " status.",
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
    """Run commands, coding agents and LLM prompts as durable background jobs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return UsageProblem.exit_code
    return 0


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are printed.

    Args:
        arguments: What follows the program's name.
    """
    _prepare_streams()
    try:
        code = _complete() if variable(COMPLETION_VARIABLE) else run_command(arguments)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (raised again if it is not a known one)
        code = exit_code_for(error)
    return code


def exit_code_for(error: BaseException) -> int:
    """Print an error on stderr and return the exit code; the one place where errors become text.

    Raises:
        BaseException: The error itself, if a command must not end with it: a bug.
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
        full = is_disk_full(error)
        message = f"The disk is full{place}." if full else f"{error.strerror or error}{place}."
        return _report(message, "Free some space." if full else "", BridgeError.exit_code)
    raise error


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # The descriptor is closed, as some service managers start programs.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 (open to the end)
        # A job's text may contain characters that the terminal's encoding lacks.
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _complete() -> int:
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, PROGRAM, COMPLETION_VARIABLE, variable(COMPLETION_VARIABLE))


def run_command(arguments: list[str]) -> int:
    """Run one command line in this process and return its exit code; errors are raised.

    Args:
        arguments: What follows the program's name.
    """
    with cli.make_context(PROGRAM, arguments) as context:
        exit_code: int | None = cli.invoke(context)
        return 0 if exit_code is None else exit_code


def _report(message: str, remedy: str, exit_code: int) -> int:
    try:
        note(f"{message} {remedy}".strip())
    except OSError:
        _silence_streams()
    return exit_code


def _silence_streams(*streams: TextIO) -> None:
    # The interpreter flushes the streams when it exits; discard that.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams or (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
