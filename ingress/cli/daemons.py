"""Commands that open a door: ``serve``, ``rest``, ``telegram``, ``clock`` (each a daemon) and ``shell``."""

from __future__ import annotations

import click

from ingress.cli.shared import signals_interrupt


@click.command()
def serve() -> int:
    """Run the station, which processes the files of the drop folder IN1N.3OX.

    Several stations can share a folder; each file is claimed by one of them.
    """
    from ingress.core.daemon import run_daemon
    from ingress.station.serve import serve as keep
    from ops.settings.load import load_settings

    return run_daemon("station", load_settings(), keep)


@click.command()
def clock() -> int:
    """Run the scheduler: schedules of 3ox.toml, ledger, history and periodic tasks.

    Any number can run. One of them is the leader; another takes over within 5 s.
    """
    from ingress.clock.serve import serve
    from ingress.core.daemon import run_daemon
    from ops.settings.load import load_settings

    return run_daemon("clock", load_settings(), serve)


@click.command()
@click.option("--session", metavar="S", help="Conversation to go on with; one of your own by default.")
def shell(*, session: str | None) -> int:
    """Open a prompt for questions and commands; background jobs are announced when they finish.

    A line that is not a command is a question; 'help' lists the commands. Ctrl-C cancels the running job,
    Ctrl-D leaves. Without a terminal, lines are read from stdin, and the exit code is that of the last line.
    """
    import sys

    from ops.logs import configure_logging
    from ops.settings.load import load_settings

    loaded = load_settings()
    configure_logging(loaded, process="shell", console=False)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from ingress.shell.prompt import run_prompt

        return run_prompt(loaded, session=session)
    from ingress.shell.script import run_script

    return run_script(loaded, session=session)


@click.command()
def rest() -> int:
    """Run the REST API with its webhooks, metrics and dashboard, on api_host and api_port.

    It needs a token; without any, one is made and shown once.
    """
    from ingress.core.daemon import run_daemon
    from ingress.dashboard.extension import extension as dashboard
    from ingress.rest.server import serve
    from ops.settings.load import load_settings

    return run_daemon("rest", load_settings(), lambda daemon: serve(daemon, [dashboard]))


@click.command()
def telegram() -> int:
    """Run the Telegram bot, which answers the chats in telegram_allow.

    It needs the token of a bot from @BotFather, in telegram_token or BRIDGE_TELEGRAM_TOKEN.
    """
    from ingress.cli.programs import require_telegram
    from ingress.core.daemon import run_daemon
    from ingress.telegram.bot import serve
    from ops.settings.load import load_settings

    loaded = load_settings()
    require_telegram(loaded)
    return run_daemon("telegram", loaded, serve)


@click.command()
def demo() -> int:
    """Show a tour: one job through each interface, in a temporary workspace.

    Starts a complete bridge with a local Bot API server, and shows receipts, output and the log. The tour
    takes less than a minute and removes everything afterwards. It uses the store of your settings with a key
    prefix of its own, or else an embedded one. The exit code is 0 if all jobs completed.
    """
    from ingress.demo.tour import run_tour
    from ops.settings.load import load_settings

    with signals_interrupt():
        return run_tour(load_settings())


COMMANDS: list[click.Command] = [serve, rest, telegram, clock, shell, demo]
