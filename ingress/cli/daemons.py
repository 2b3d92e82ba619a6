"""Commands that run one interface: ``serve``, ``rest``, ``telegram``, ``clock``, ``shell``, ``demo``."""

from __future__ import annotations

import sys

import click

from ingress.core.run_and_follow import signals_interrupt
from ops.settings.load import load_settings


@click.command()
def serve() -> int:
    """Run the station: ingest the files of the drop folder IN1N.3OX.

    Any number may run on one folder; each file is ingested once.
    """
    from ingress.core.daemon import run_daemon
    from ingress.station.serve import serve as serve_station

    return run_daemon("station", load_settings(), serve_station)


@click.command()
def clock() -> int:
    """Run the scheduler: the schedules of 3ox.toml and the bridge's periodic tasks.

    Any number may run: one is the leader, and another takes over within 5 s if it fails. The leader also
    seals the ledger.
    """
    from ingress.clock.serve import serve as serve_clock
    from ingress.core.daemon import run_daemon

    return run_daemon("clock", load_settings(), serve_clock)


@click.command()
@click.option("--session", metavar="S", help="Conversation to continue; by default your own.")
def shell(*, session: str | None) -> int:
    """Run an interactive shell for questions and commands.

    A line that is not a command is a question; 'help' lists the commands. Ctrl-C cancels the running job,
    Ctrl-D leaves. Without a terminal, reads its lines from stdin and exits with the code of the last one.
    """
    from ingress.cli.main import run_command
    from ops.logs import configure_logging

    loaded = load_settings()
    configure_logging(loaded, process="shell", console=False)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from ingress.shell.prompt import run_prompt

        return run_prompt(loaded, session=session, run_command=run_command)
    from ingress.shell.script import run_script

    return run_script(loaded, session=session, run_command=run_command)


@click.command()
def rest() -> int:
    """Run the REST API with webhooks, metrics and dashboard, on api_host and api_port.

    Without any token, one is created and shown once.
    """
    from ingress.core.daemon import run_daemon
    from ingress.dashboard.extension import extension as dashboard
    from ingress.rest.server import serve as serve_rest

    return run_daemon("rest", load_settings(), lambda daemon: serve_rest(daemon, [dashboard]))


@click.command()
def telegram() -> int:
    """Run the Telegram bot, which answers the chats in telegram_allow.

    Needs the token of a bot from @BotFather (telegram_token or BRIDGE_TELEGRAM_TOKEN).
    """
    from ingress.cli.programs import require_telegram
    from ingress.core.daemon import run_daemon
    from ingress.telegram.bot import serve as serve_telegram

    loaded = load_settings()
    require_telegram(loaded)
    return run_daemon("telegram", loaded, serve_telegram)


@click.command()
@click.argument("name")
def ingress(*, name: str) -> int:
    """Run the ingress adapter NAME of an installed package; '3ox up' runs all of them."""
    from ingress.core.daemon import run_daemon
    from ingress.core.plugin_adapters import require_ingress_plugin
    from ops.settings.load import load_settings

    loaded = load_settings()
    return run_daemon(name, loaded, require_ingress_plugin(name))


@click.command()
def demo() -> int:
    """Run a tour: one job through each interface, in a temporary workspace.

    Starts a complete bridge with a local Bot API server, and shows receipts, output and the log. The tour
    takes less than a minute and removes everything afterwards. It uses the store of your settings with a key
    prefix of its own, or an embedded one. Exits 0 if all jobs completed.
    """
    from ingress.demo.tour import run_tour

    with signals_interrupt():
        return run_tour(load_settings())


COMMANDS: list[click.Command] = [serve, rest, telegram, clock, shell, ingress, demo]
