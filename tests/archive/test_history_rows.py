"""The history by itself: its rows, its queries, its retention."""

from __future__ import annotations

import itertools
import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from middleware.archive.history import History, HistoryRow, JobFilter, id_queries
from middleware.job.ids import new_job_id
from middleware.job.receipt import first_receipt
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from ops.errors import HistoryBroken


def some_row(number: int, ended_ms: int) -> HistoryRow:
    """Return the row of a job."""
    job = make_job("task.custom", {"task": f"task {number}"}, project=f"p{number % 10}")
    receipt = first_receipt(job, status="completed", at_ms=ended_ms, input_sha256="0" * 64)
    record = JobRecord(
        job_id=new_job_id(ended_ms),
        trace_id="t",
        job_type="task.custom",
        status="completed" if number % 50 else "failed",
        source="cli",
        actor="a",
        project=job.project,
        session_id=None,
        priority=5,
        payload={"task": f"task {number}"},
        created_at="2026-01-01T00:00:00.000Z",
    )
    return HistoryRow(record=record, receipt=receipt, ended_ms=ended_ms)


def test_old_and_excess_rows_go(tmp_path: Path) -> None:
    """By age and by number, in portions; their words are removed with them."""
    history = History(tmp_path / "h.db", writable=True)
    history.put([some_row(number, 1000 + number) for number in range(20)], {})
    assert history.expire(until_ms=1005, rows_max=100) == 5
    assert history.expire(until_ms=0, rows_max=10, limit=3) == 3
    assert history.expire(until_ms=0, rows_max=10) == 2
    assert history.expire(until_ms=0, rows_max=10) == 0
    assert history.count() == 10
    assert history.search(JobFilter(text="task 3"), limit=5, below=1000) == []


def test_a_history_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """An older program reports it and changes nothing; a file that is not a database is reported too."""
    with sqlite3.connect(tmp_path / "h.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryBroken, match="version 99"):
        History(tmp_path / "h.db", writable=True)
    (tmp_path / "x.db").write_bytes(b"no database at all, but long enough to be one" * 10)
    with pytest.raises(HistoryBroken, match="cannot be used"):
        History(tmp_path / "x.db", writable=True)


FILTERS = {"status": "failed", "job_type": "ask", "project": "p3", "source": "cli", "day": "2026-01-01"}


@pytest.mark.parametrize("count", range(6))
def test_no_combination_of_filters_walks_over_rows_or_sorts_them(tmp_path: Path, count: int) -> None:
    """Each query of a page reads one index in order, from its starting point."""
    with History(tmp_path / "h.db", writable=True) as history:
        history.put([some_row(number, 1000 + number) for number in range(20)], {})
        for names in itertools.combinations(FILTERS, count):
            filters = JobFilter(**{name: FILTERS[name] for name in names})
            for query, values in id_queries(filters, [1]):
                plan = history._db.execute(f"EXPLAIN QUERY PLAN {query}", (*values, "~", 50)).fetchall()
                (step,) = [row[3] for row in plan]
                assert step.startswith("SEARCH jobs USING COVERING INDEX"), (names, step)
                assert step.endswith("job_id<?)"), (names, step)


@pytest.mark.parametrize("seed", range(3))
def test_pages_of_the_history_are_what_a_filter_over_all_gives(tmp_path: Path, seed: int) -> None:
    """With any filters, the pages together are the matching rows, latest id first."""
    draw = random.Random(seed)  # noqa: S311 (the same rows each time)
    rows = []
    for number in range(200):
        row = some_row(number, 1000 + number)
        record = msgspec.structs.replace(
            row.record,
            status=draw.choice(["failed", "completed"]),
            job_type=draw.choice(["ask", "task.custom"]),
            project=draw.choice(["p3", "p4", None]),
            source=draw.choice(["cli", "rest"]),
            created_at=f"2026-01-0{draw.randrange(1, 3)}T00:00:00.000Z",
        )
        rows.append(msgspec.structs.replace(row, record=record))
    draw.shuffle(rows)
    with History(tmp_path / "h.db", writable=True) as history:
        history.put(rows, {})
        for count in range(6):
            for names in itertools.combinations(FILTERS, count):
                filters = JobFilter(**{name: FILTERS[name] for name in names})
                fitting = [row.record for row in rows if filters.matches(row.record)]
                seen: list[JobRecord] = []
                below: str | None = None
                while page := history.page(filters, limit=7, below=below):
                    seen += [past.record for past in page]
                    below = page[-1].record.job_id
                assert seen == sorted(fitting, key=lambda record: record.job_id, reverse=True), names
                found = history.search(msgspec.structs.replace(filters, text="task"), limit=300, below=1000)
                assert {past.record.job_id for past in found} == {record.job_id for record in fitting}, names


def test_a_row_that_is_written_again_counts_once(tmp_path: Path) -> None:
    """Rows that are written several times count once."""
    with History(tmp_path / "h.db", writable=True) as history:
        rows = [some_row(number, 1000 + number) for number in range(10)]
        for _ in range(5):
            history.put(rows, {})
        assert history.expire(until_ms=0, rows_max=10) == 0
        assert (history.count(), history.last_number()) == (10, 10)
