"""The command ``verify``: verify the ledger."""

from __future__ import annotations

import re
import time

import click

from ingress.cli.shared import json_option
from ingress.core.bridge import connect
from ingress.core.ledger_proofs import key_ring, verify_ledger
from ingress.core.terminal import emit_json, note
from ingress.core.text import count_of
from ops.errors import UsageProblem
from ops.settings.load import load_settings

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@click.command()
@click.option("--day", metavar="YYYY-MM-DD", help="Verify only this day and its links to the days beside it.")
@click.option("--rotate-key", is_flag=True, help="Create the next signing key; it is used 24 h from now.")
@json_option
def verify(*, day: str | None, rotate_key: bool, as_json: bool) -> int:
    """Verify the ledger: order, hashes, signatures, and that the store has no later entries.

    Exits 1 if it is not valid, and names the first bad line.
    """
    if rotate_key:
        if day is not None:
            raise UsageProblem("--rotate-key cannot be combined with --day.", remedy="Leave out --day.")
        loaded = load_settings()
        loaded.workspace.create()
        key = key_ring(loaded).rotate(time.time())
        if as_json:
            emit_json(key)
        else:
            click.echo(f"Created key {key.kid}, public key {key.public}")
        return 0
    if day is not None and not _DAY.fullmatch(day):
        raise UsageProblem(f"{day!r} is not a day.", remedy="Write it as YYYY-MM-DD.")
    verdict = verify_ledger(connect(), day=day)
    if as_json:
        emit_json(verdict)
    else:
        for text in verdict.notes:
            note(text)
        if verdict.fault is not None:
            click.echo(f"FAILED: {verdict.fault}")
        else:
            compared = f", compared with {count_of(verdict.jobs, 'job')} in the store" if verdict.jobs else ""
            entries = f"{verdict.lines} ledger entr{'y' if verdict.lines == 1 else 'ies'}"
            click.echo(f"OK: {entries} verified ({count_of(len(verdict.days), 'day')}){compared}.")
    return 0 if verdict.ok else 1


COMMANDS = [verify]
