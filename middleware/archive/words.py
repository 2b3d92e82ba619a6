"""Search by words: the same rules for jobs of the history and for those that only the store has.

A word is what SQLite's FTS5 takes for one: letters and digits up to the next other character, upper and lower
case alike, accents left out. ``foo-bar`` is looked for as these two words in a row; no character is an
operator.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence

from middleware.archive.search import Narrowing, searchable
from middleware.job.records import JobRecord
from ops.errors import InvalidJob


def text_query(text: str) -> str:
    """Write words as a query of which each is taken as it stands.

    Raises:
        InvalidJob: There is no word in it.
    """
    words = [word for word in text.replace("\0", " ").split() if any(letter.isalnum() for letter in word)]
    if not words:
        raise InvalidJob(
            f"there is no word in {text!r} to search for.", remedy="Name one with letters.", field="search"
        )
    quoted = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
    return f"text : ({quoted})"


def tags(facet: int, project: str, day: str) -> str:
    """Give what a search is narrowed by, as words."""
    return f"{_facet_tag(facet)} {_project_tag(project)} {_day_tag(day)}"


def tags_query(narrowing: Narrowing, facets: Iterable[int] | None) -> str:
    """Write the narrowing as a query over ``tags``; a project is only about right.

    Args:
        narrowing: To what.
        facets: Those that fit; None if all do.
    """
    parts = []
    if facets is not None:
        parts.append(f"tags : ({' OR '.join(map(_facet_tag, facets))})")
    if narrowing.project is not None:
        parts.append(f"tags : {_project_tag(narrowing.project)}")
    if narrowing.day is not None:
        parts.append(f"tags : {_day_tag(narrowing.day)}")
    return "".join(f" AND {part}" for part in parts)


def _facet_tag(facet: int) -> str:
    return f"f{facet}"


def _project_tag(project: str) -> str:
    return f"p{zlib.crc32(project.encode()):08x}"


def _day_tag(day: str) -> str:
    return f"d{day.replace('-', '')}"


def having_words(records: Sequence[JobRecord], text: str) -> list[JobRecord]:
    """Give those of the jobs in which all these words stand.

    Raises:
        InvalidJob: There is no word in the text.
    """
    query = text_query(text)
    db = sqlite3.connect(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
        db.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)",
            ((at, searchable(record)) for at, record in enumerate(records)),
        )
        found = db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid", (query,))
        return [records[at] for (at,) in found]
    finally:
        db.close()
