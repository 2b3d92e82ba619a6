"""The command that writes all jobs to a file: ``export``."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from ingress.cli.shared import note, require_job_type, utf8
from ingress.core.text import count_of
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
