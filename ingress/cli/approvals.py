"""Commands that decide on jobs which wait for approval: ``approve`` and ``deny``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ingress.cli.shared import emit_json, for_each, json_option, login_name, utf8
from ingress.dispatch import approve as let_go
from ingress.dispatch import deny as refuse
from ingress.dispatch import list_approvals

if TYPE_CHECKING:
    from middleware.job.records import Receipt

_LISTED_MAX = 200

_reason = click.option("--reason", metavar="TEXT", default="", help="Why, one sentence for the receipt.")


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_reason
@json_option
def approve(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Let jobs go on that wait for approval; without ID, list them.

    A rule of the policy ([[policy]] in 3ox.toml) holds them. Your login name stands on the receipt.
    """
    if not ids:
        return _list(as_json=as_json)
    return _decide(ids, let_go, reason, as_json=as_json)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_reason
@json_option
def deny(*, ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Cancel jobs that wait for approval.

    Your login name stands on the receipt.
    """
    return _decide(ids, refuse, reason, as_json=as_json)


def _decide(ids: tuple[str, ...], act: Callable[..., Receipt], reason: str, *, as_json: bool) -> int:
    said = utf8(reason, "--reason")
    receipts: list[Receipt] = []

    def decide_one(part: str) -> int:
        receipt = act(part, actor=login_name(), reason=said)
        receipts.append(receipt)
        if not as_json:
            click.echo(f"{receipt.job_id} {receipt.status}")
        return 0

    code = for_each(ids, decide_one)
    if as_json:
        emit_json({"receipts": receipts})
    return code


def _list(*, as_json: bool) -> int:
    import msgspec

    waiting = list_approvals(_LISTED_MAX)
    if as_json:
        emit_json({"jobs": [msgspec.Raw(record.to_json()) for record in waiting]})
        return 0
    if not waiting:
        click.echo("No job waits for approval.")
        return 0
    from ingress.core.text import one_line, print_table, since

    print_table(
        ("JOB", "TYPE", "FROM", "WAITS", "WHAT"),
        [
            (
                record.job_id,
                record.job_type,
                f"{one_line(record.actor)} through {record.source}" if record.actor else record.source,
                since(record.created_at),
                one_line(msgspec.json.encode(record.payload).decode()),
            )
            for record in waiting
        ],
    )
    return 0


COMMANDS = [approve, deny]
