"""What programs on a terminal share: JSON, tables and fields on stdout, notes on stderr.

Nothing here imports click or rich at the top, which would slow down commands that need neither.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ingress.core.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

#: How rich shows a state.
STATE_STYLES = {
    "processing": "cyan",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "retrying": "magenta",
}
#: Columns that share the room the others leave.
_STRETCHING = {"WHAT", "REASON", "PROCESSING"}


def note(text: str) -> None:
    """Write one line to stderr that is not part of the command's output."""
    sys.stderr.write(f"3ox: {one_line(text)}\n")
    sys.stderr.flush()


def emit_json(document: bytes | object) -> None:
    """Write one JSON document to stdout, indented on a terminal.

    Args:
        document: JSON as bytes, or what msgspec can encode.
    """
    import msgspec

    data = document if isinstance(document, bytes) else msgspec.json.encode(document)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with rich on a terminal, as aligned plain text anywhere else.

    Args:
        columns: Headings.
        rows: Cells without control characters; the last column takes the room that is left.
    """
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)][:-1]
    for row in (columns, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join((*cells, row[-1])).rstrip() + "\n")
    sys.stdout.flush()


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for rich; long text is cut to the terminal's width."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=bool(_STRETCHING & set(columns)))
    for name in columns:
        ratio = 1 if name in _STRETCHING else None
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for row in rows:
        # Text, not str: square brackets in a job's text are not markup.
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    return table


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line, values aligned; further lines of a value are indented."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        text = value.replace("\n", "\n" + " " * (width + 2))
        sys.stdout.write(f"{name.ljust(width)}  {text}".rstrip() + "\n")
    sys.stdout.flush()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``Did you mean 'x'?`` and a space, or nothing if no name is near."""
    from difflib import get_close_matches

    # 0.7 keeps typing errors and drops unrelated words: 'help' is not a misspelt 'shell'.
    near = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"Did you mean {near[0]!r}? " if near else ""
