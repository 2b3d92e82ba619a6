"""``3ox demo``: a tour of the bridge on real jobs."""

from __future__ import annotations

import click

from ingress.cli.shared import signals_interrupt


@click.command()
def demo() -> int:
    """Show the bridge: one real job through every door, in a temporary workspace.

    Starts a whole bridge with a local Telegram, shows receipts, outputs and the log, and ends by itself in
    less than a minute; nothing is left running or on disk. A store of your settings is used under a key
    prefix of the demo's own, else the embedded one. Exits 0 if every job is completed.
    """
    from ingress.demo.tour import run_tour
    from ops.settings.load import load_settings

    with signals_interrupt():
        return run_tour(load_settings())


COMMANDS: list[click.Command] = [demo]
