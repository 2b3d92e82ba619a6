"""The command that writes all jobs to a file: ``export``."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click
import msgspec

from ingress.cli.shared import emit_json, for_each, login_name, note, require_job_type, utf8
from ingress.core.deliveries import count_undelivered, list_undelivered
from ingress.core.deliveries import redeliver as deliver_again
from ingress.core.text import count_of, one_line, print_table
from ingress.dispatch import export_jobs
from middleware.job.states import State

STATES = tuple(str(state) for state in State)


@click.command()
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--type", "job_type", metavar="T", help="Only jobs of this type.")
@click.option("--status", metavar="S", type=click.Choice(STATES), help=f"One of: {', '.join(STATES)}.")
@click.option("--source", metavar="DOOR", help="Only jobs that came through it: cli, rest, clock, ...")
@click.option("--day", metavar="YYYY-MM-DD", help="Only jobs created on this day, UTC.")
@click.option("--search", metavar="TEXT", help="Only jobs in which all these words stand.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write to this file, which is replaced when all is written; to stdout by default.",
)
def export(
    *,
    project: str | None,
    job_type: str | None,
    status: str | None,
    source: str | None,
    day: str | None,
    search: str | None,
    output: str | None,
) -> int:
    """Write jobs as JSON lines, those of the history too.

    One job a line, each once and in full, the latest first. With --output the file is made anew, readable
    for its owner only, and an interrupted export leaves it as it was.
    """
    if job_type is not None:
        require_job_type(job_type)
    wanted = {
        "project": project,
        "job_type": job_type,
        "status": status,
        "source": source,
        "day": day,
        "text": None if search is None else utf8(search, "--search"),
    }
    if output is None:
        sys.stdout.flush()
        _write(sys.stdout.buffer, wanted)
        sys.stdout.buffer.flush()
        return 0
    count = _replace(output, wanted)
    note(f"{count_of(count, 'job')} written to {output}.")
    return 0


def _write(file: BinaryIO, wanted: dict[str, str | None]) -> int:
    count = 0
    for record in export_jobs(**wanted):
        file.write(record.to_json() + b"\n")
        count += 1
    return count


def _replace(output: str, wanted: dict[str, str | None]) -> int:
    """Write a file beside it first, so that nobody finds half an export."""
    import os
    import tempfile
    from pathlib import Path

    target = Path(output)
    if target.exists() and not target.is_file():
        # A pipe or a device cannot be replaced.
        with target.open("wb") as file:
            return _write(file, wanted)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            count = _write(file, wanted)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return count


COMMANDS = [export]


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
