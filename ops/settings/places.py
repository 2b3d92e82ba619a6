"""Where a key is in ``3ox.toml``: errors name the line, which the TOML parser does not report."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct, structs

# Not compiled here: they are needed for errors only.
_HEADER = r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]"
_KEY = r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*="


class Place(Struct, frozen=True):
    """A key of the file; its text is made only when an error is shown.

    Attributes:
        path: The file.
        content: Its content.
        key: The key with its tables, such as ``projects.web.path``; ``schedule 2.cron`` in the second
            ``[[schedule]]``.
        form: The text, in which ``{key}`` and ``{file}`` are replaced.
        name: Key within ``key`` that is at fault, if it is not to be shown.
    """

    path: Path
    content: str
    key: str
    form: str = "{key} in {file}"
    name: str = ""

    def below(self, name: str) -> Place:
        """Return the place of a key in this table."""
        return structs.replace(self, key=f"{self.key}.{name}", form="{key} in {file}", name="")

    def item(self, number: int) -> Place:
        """Return the place of an item in this list of tables, counted from 1."""
        return structs.replace(self, key=f"{self.key} {number}", form="{key} in {file}", name="")

    def as_form(self, form: str, name: str = "") -> Place:
        """Return the same place with another text."""
        return structs.replace(self, form=form, name=name)

    def __str__(self) -> str:
        line = line_of(self.content, f"{self.key}.{self.name}" if self.name else self.key)
        place = f"{self.path}" if line is None else f"{self.path} (line {line})"
        return self.form.format(key=self.key, file=place)


def line_of(content: str, key: str) -> int | None:
    """Return the line of a key, counted from 1, or that of the table that contains it.

    Args:
        content: A valid TOML document.
        key: The key as in ``Place``.
    """
    table, found, found_length = "", None, 0
    counts: dict[str, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        header = re.match(_HEADER, line)
        if header is not None:
            table = _plain(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
            name = table = f"{table} {counts[table]}" if header[1] == "[[" else table
        else:
            assigned = re.match(_KEY, line)
            if assigned is None:
                continue
            name = f"{table}.{_plain(assigned[1])}" if table else _plain(assigned[1])
        if len(name) > found_length and (key == name or key.startswith((f"{name}.", f"{name} "))):
            found, found_length = number, len(name)
    return found


def _plain(key: str) -> str:
    """Return a dotted key without quotes and white space around its parts."""
    return re.sub(r"\s*\.\s*", ".", key).replace('"', "").replace("'", "")
