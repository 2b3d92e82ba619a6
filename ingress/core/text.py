"""Text for people: harmless, short, in columns; with rich on a terminal, as plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from middleware.job.records import JobRecord

#: So many of an id's last characters are shown in lists; they are random, so this few tell jobs apart.
SHORT_ID_LENGTH = 8

#: Fields of payloads that say what a job is about, and how much of that lists show.
_SPEAKING_FIELDS = ("task", "prompt", "argv", "name", "text", "endpoint", "path", "nonce")
_WHAT_MAX_CHARS = 40
_SPACING = {"\n", "\t"}
#: Characters that turn the direction of what follows and can make a line read as another.
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f", "\u061c"}
#: How rich shows a state.
STATE_STYLES = {
    "processing": "cyan",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "retrying": "magenta",
}


def safe(text: str) -> str:
    """Make a job's text harmless for a terminal: control characters are shown, not obeyed.

    Line ends and tabs stay; a carriage return, which could write over what was said before, ends the line.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in _SPACING else _visible(letter)
        for letter in text.replace("\r\n", "\n").replace("\r", "\n")
    )


def _visible(letter: str) -> str:
    code = ord(letter)
    # Spaces of other scripts, joiners of emoji and the like are "not printable" for Python, yet harmless.
    if code >= 0xA0 and letter not in _TURNING and not 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 (Unicode)
        return letter
    return letter.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Make a job's text harmless and fit for one line."""
    return " ".join(safe(text).split())


def count_of(number: int, name: str) -> str:
    """Give a number with what it counts, in the plural unless it is one: ``1 job``, ``2 jobs``."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def short_id(job_id: str) -> str:
    """Give the part of a job id that lists show."""
    return job_id[-SHORT_ID_LENGTH:]


def duration(seconds: float) -> str:
    """Give a span of time in its two largest units: ``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``4d06h``."""
    if seconds < 10:  # noqa: PLR2004 (below ten seconds a tenth is worth reading)
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes}m{rest_s:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h"


def seconds_between(start: str | None, end: str | None = None) -> float | None:
    """Give the seconds between two RFC 3339 times, None if there is no start.

    Args:
        start: Earlier time.
        end: Later time; now when None.
    """
    if start is None:
        return None
    from datetime import UTC, datetime

    later = datetime.now(UTC) if end is None else datetime.fromisoformat(end)
    return (later - datetime.fromisoformat(start)).total_seconds()


def since(start: str | None, end: str | None = None) -> str:
    """Give the time between two RFC 3339 times as text, ``-`` if there is no start."""
    seconds = seconds_between(start, end)
    return "-" if seconds is None else duration(seconds)


def kind(record: JobRecord) -> str:
    """Give the job's type, with its project if it has one."""
    return record.job_type if record.project is None else f"{record.job_type}/{record.project}"


def what(record: JobRecord, *, max_chars: int = _WHAT_MAX_CHARS) -> str:
    """Give the beginning of what the job was asked to do: its task, prompt, command or file."""
    payload = record.payload if isinstance(record.payload, dict) else {}
    found = next((payload[name] for name in _SPEAKING_FIELDS if name in payload), "")
    text = one_line(" ".join(map(str, found)) if isinstance(found, list) else str(found))
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def why(record: JobRecord) -> str:
    """Give what a reader of a list wants to know next: what the job is doing, or why it is where it is."""
    busy = record.status == "processing" and bool(record.progress_message)
    return one_line(record.progress_message if busy else record.reason)


def summary_line(summary: Mapping[str, int]) -> str:
    """Give the counts by state; the unusual ones only when there are any."""
    names = (
        ("Running", "processing", True),
        ("Pending", "queued", True),
        ("Scheduled", "scheduled", False),
        ("Held", "held", False),
        ("Retrying", "retrying", False),
        ("Completed", "completed", True),
        ("Failed", "failed", True),
        ("Cancelled", "cancelled", False),
    )
    return "  ".join(
        f"{label}: {summary.get(state, 0)}"
        for label, state, always in names
        if always or summary.get(state, 0)
    )


def job_rows(records: Sequence[JobRecord]) -> list[tuple[str, ...]]:
    """Give the cells of a list of jobs, see ``JOB_COLUMNS``."""
    return [
        (
            short_id(record.job_id),
            kind(record),
            str(record.status),
            f"{record.progress:.0f}%",
            since(record.created_at),
            what(record),
            why(record),
        )
        for record in records
    ]


JOB_COLUMNS = ("ID", "JOB", "STATE", "DONE", "AGE", "WHAT", "REASON")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with rich on a terminal, as aligned plain text anywhere else.

    Args:
        columns: Headings.
        rows: Cells, already harmless; the last column takes what room is left.
    """
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)][:-1]
    for row in (columns, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join((*cells, row[-1])).rstrip())


#: Columns that share what room the others leave.
_STRETCHING = {"WHAT", "REASON", "PROCESSING"}


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Give the table as rich draws it; long text is cut to the terminal's width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=bool(_STRETCHING & set(columns)))
    for name in columns:
        ratio = 1 if name in _STRETCHING else None
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for row in rows:
        # Text, not str: square brackets in a job's text are no markup.
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    return table


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line, values aligned; further lines of a value are indented."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        text = value.replace("\n", "\n" + " " * (width + 2))
        click.echo(f"{name.ljust(width)}  {text}".rstrip())
