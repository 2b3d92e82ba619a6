"""Results that have not arrived: ``3ox jobs --undelivered`` and ``3ox retry --undelivered``."""

from __future__ import annotations

import click
import msgspec

from ingress.cli.shared import emit_json, for_each, login_name
from ingress.core.deliveries import count_undelivered, list_undelivered
from ingress.core.deliveries import redeliver as deliver_again
from ingress.core.text import one_line, print_table
from middleware.job.states import State

_LIMIT = 50
#: Jobs whose deliveries one command tries again.
_AGAIN_MAX = 1000


def show_undelivered(*, limit: int | None, as_json: bool) -> None:
    """Print jobs whose results have not arrived everywhere, and how many deliveries that are."""
    records = list_undelivered(_LIMIT if limit is None else limit)
    counts = count_undelivered()
    if as_json:
        emit_json({"jobs": [msgspec.Raw(record.to_json()) for record in records], "undelivered": counts})
        return
    rows = [
        (record.job_id, record.job_type, str(record.status), item.sink, item.status, one_line(item.reason))
        for record in records
        for item in record.deliveries
        if item.status != State.COMPLETED
    ]
    if rows:
        print_table(("JOB", "TYPE", "STATE", "SINK", "DELIVERY", "REASON"), rows)
    click.echo(f"Deliveries on the way: {counts['waiting']}, given up: {counts['failed']}.")


def retry_undelivered(ids: tuple[str, ...], *, as_json: bool) -> int:
    """Try deliveries again that were given up.

    Args:
        ids: Of which jobs; of all, up to 1000, if there is none.
        as_json: Print one JSON document.
    """
    wanted = ids if ids else _given_up()
    tried: list[dict[str, object]] = []

    def try_one(part: str) -> int:
        sinks = deliver_again(part, reason=f"tried again by {login_name()}")
        tried.append({"job_id": part, "sinks": sinks})
        if not as_json:
            click.echo(f"{part} {' '.join(sinks)}")
        return 0

    code = for_each(wanted, try_one)
    if as_json:
        emit_json({"deliveries": tried})
    return code


def _given_up() -> tuple[str, ...]:
    return tuple(
        record.job_id
        for record in list_undelivered(_AGAIN_MAX)
        if any(item.status == State.FAILED for item in record.deliveries)
    )
