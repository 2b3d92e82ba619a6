"""The command ``export``, and the lists of undelivered results."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from ingress.cli.shared import for_each, require_job_type
from ingress.core.deliveries import count_undelivered, list_undelivered, redeliver
from ingress.core.local_user import login_name, utf8
from ingress.core.terminal import emit_json, note, print_table
from ingress.core.text import count_of, one_line
from ingress.dispatch import export_jobs
from middleware.job.states import State

#: Undelivered results listed by default.
_LIMIT = 50
#: Jobs whose deliveries one command retries.
_RETRY_MAX = 1000
STATES = tuple(str(state) for state in State)


@click.command()
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--type", "job_type", metavar="T", help="Only jobs of this type.")
@click.option(
    "--status",
    metavar="S",
    type=click.Choice(STATES),
    help=f"Only jobs in this state, one of {', '.join(STATES)}.",
)
@click.option("--source", metavar="SOURCE", help="Only jobs from this interface: cli, rest, clock, ...")
@click.option("--day", metavar="YYYY-MM-DD", help="Only jobs created on this day, UTC.")
@click.option("--search", metavar="TEXT", help="Only jobs that contain all these words.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="File to write, replaced at the end; stdout by default.",
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
    """Write jobs, including the history, as JSON lines.

    One job a line, in full, the latest first. The file of --output is readable by its owner only, and an
    interrupted export does not change it.
    """
    if job_type is not None:
        require_job_type(job_type, in_history=True)
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
    """Write a temporary file beside it first, so that the target is never half written."""
    target = Path(output)
    if target.exists() and not target.is_file():
        # A pipe or a device cannot be replaced.
        with target.open("wb") as file:
            return _write(file, wanted)
    try:
        temporary = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below)
            dir=target.parent, prefix=f".{target.name}.", delete=False
        )
    except OSError as error:
        # The user knows the target, not the temporary file.
        raise OSError(error.errno, error.strerror, output) from error
    with temporary as file:
        try:
            count = _write(file, wanted)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return count


def show_undelivered(*, limit: int | None, as_json: bool) -> None:
    """Print the jobs whose results were not delivered everywhere, and the number of deliveries."""
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
        print_table(("JOB", "TYPE", "STATE", "DESTINATION", "DELIVERY", "REASON"), rows)
    click.echo(f"Deliveries pending: {counts['waiting']}, failed: {counts['failed']}.")


def retry_undelivered(ids: tuple[str, ...], *, as_json: bool) -> int:
    """Retry failed deliveries and return the exit code.

    Args:
        ids: The jobs; if empty, all jobs with failed deliveries, at most 1000.
        as_json: Print one JSON document.
    """
    wanted = ids if ids else _with_failed_deliveries()
    tried: list[dict[str, object]] = []

    def try_one(part: str) -> int:
        sinks = redeliver(part, reason=f"retried by {login_name()}")
        tried.append({"job_id": part, "sinks": sinks})
        if not as_json:
            click.echo(f"{part} {' '.join(sinks)}")
        return 0

    code = for_each(wanted, try_one)
    if as_json:
        emit_json({"deliveries": tried})
    return code


def _with_failed_deliveries() -> tuple[str, ...]:
    return tuple(
        record.job_id
        for record in list_undelivered(_RETRY_MAX)
        if any(item.status == State.FAILED for item in record.deliveries)
    )


COMMANDS = [export]
