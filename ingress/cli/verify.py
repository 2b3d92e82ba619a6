"""The command that proves the ledger: ``verify``."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from ingress.cli.shared import emit_json, json_option, note
from ingress.core.text import count_of
from ops.errors import UsageProblem

if TYPE_CHECKING:
    from middleware.archive.proof import Proof

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@click.command()
@click.option("--day", metavar="YYYY-MM-DD", help="Only this day, and that it joins those beside it.")
@click.option("--rotate-key", is_flag=True, help="Make the next signing key; it signs a day from now.")
@json_option
def verify(*, day: str | None, rotate_key: bool, as_json: bool) -> int:
    """Prove the ledger: order, hashes, signatures, no gap against the store.

    Exits 1 if it does not hold, and names the first bad line.
    """
    from ingress.core.bridge import connect
    from ingress.core.ledger_proofs import key_ring, verify_ledger

    if rotate_key:
        if day is not None:
            raise UsageProblem("--rotate-key proves nothing.", remedy="Leave out --day.")
        from ops.settings.load import load_settings

        loaded = load_settings()
        loaded.workspace.create()
        key = key_ring(loaded).rotate(time.time())
        if as_json:
            emit_json(key)
        else:
            click.echo(f"key {key.kid} made, public part {key.public}")
        return 0
    if day is not None and not _DAY.fullmatch(day):
        raise UsageProblem(f"{day!r} is no day.", remedy="Write it as YYYY-MM-DD.")
    verdict = verify_ledger(connect(), day=day)
    if as_json:
        emit_json(verdict)
    else:
        for text in verdict.notes:
            note(text)
        if verdict.fault is not None:
            click.echo(f"false: {verdict.fault}")
        else:
            compared = f", compared with {count_of(verdict.jobs, 'job')} of the store" if verdict.jobs else ""
            lines, days = count_of(verdict.lines, "line"), count_of(len(verdict.days), "day")
            click.echo(f"true: {lines} of {days} hold{'s' if verdict.lines == 1 else ''}{compared}.")
    return 0 if verdict.ok else 1


def show_proof(proof: Proof) -> None:
    """Say whether a receipt is proven."""
    if proof.first:
        click.echo(f"sealed  {proof.first} to {proof.last}, signed with {', '.join(proof.keys)}")
    if proof.ok:
        click.echo(f"true: all {proof.transitions} transitions are sealed as they stand here.")
        return
    click.echo(f"false: {'; '.join(proof.faults)}.")


COMMANDS = [verify]
