"""The command line ``3ox``: finds the command, loads its module only, turns errors into exit codes.

A command is a click command in the ``COMMANDS`` list of its module; it returns its exit code (None is 0)
and raises ``BridgeError`` for what a user can mend. To add one, write it there and name it here.
"""

from __future__ import annotations

import os
import signal
import sys

import click

from ops.errors import BridgeError, UsageProblem

#: Command -> module of ``ingress.cli`` that holds it; the order is that of ``3ox --help``.
MODULES = {
    "up": "services",
    "down": "services",
    "status": "status",
    "ask": "work",
    "run": "work",
    "sh": "work",
    "jobs": "jobs",
    "logs": "jobs",
    "receipt": "jobs",
    "wait": "acts",
    "cancel": "acts",
    "retry": "acts",
    "worker": "services",
    "config": "services",
    "doctor": "services",
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


def version() -> str:
    """Give the version: of the installed distribution, or of the checkout that this file lies in."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("cmd-bridge")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
            return str(tomllib.load(file)["project"]["version"])


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
    """Carry out one command line and give its exit code; the one place where errors become text.

    Args:
        arguments: What follows the program's name.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A job's text may hold what the terminal's encoding cannot say; that must not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        outcome = _invoke(arguments)
        sys.stdout.flush()
    except BridgeError as error:
        return _report(error.message, error.remedy, error.exit_code)
    except click.exceptions.Exit as request:
        return request.exit_code
    except (KeyboardInterrupt, click.Abort) as interrupt:
        return 128 + getattr(interrupt, "signal_number", signal.SIGINT)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = PROGRAM if context is None else context.command_path
        return _report(error.format_message(), f"See '{path} --help'.", UsageProblem.exit_code)
    except BrokenPipeError:
        return _broken_pipe()
    return outcome


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
    except BrokenPipeError:
        _broken_pipe()
    return exit_code


def _broken_pipe() -> int:
    # The interpreter flushes stdout once more while it ends; let that go nowhere.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return EXIT_BROKEN_PIPE


def main() -> None:
    """Run ``3ox`` with the arguments of this process and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
