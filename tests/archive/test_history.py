"""Ended jobs go from the store into the history and look the same there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingress.catalog import Catalog
from ingress.dispatch import Bridge
from middleware.archive.archivist import Archivist
from middleware.archive.history import History, Narrowing, Row
from middleware.broker.scripts import Settlement
from middleware.job.ids import new_job_id
from middleware.job.records import JobRecord, new_receipt
from middleware.job.schema import make_job
from ops.errors import AmbiguousJobId, HistoryBroken, InvalidJob, JobNotFound
from ops.settings import load_settings
from tests.support import RunningValkey


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge on a store of its own."""
    loaded = load_settings(tmp_path, environ={})
    loaded.workspace.create()
    store = RunningValkey(loaded)
    store.start()
    yield Bridge(loaded)
    store.stop()


@pytest.fixture
def history(bridge: Bridge) -> Iterator[History]:
    """Its history."""
    made = History(bridge.loaded.workspace.history_db, writable=True)
    yield made
    made.close()


@pytest.fixture
def archivist(bridge: Bridge, history: History) -> Archivist:
    """Who fills it."""
    return Archivist(bridge.reader, history, retention_s=3600, rows_max=1000, output_max_bytes=1000)


def carry_out(
    bridge: Bridge, task: str = "x", outcome: str = "completed", result: bytes = b'{"text":"y"}'
) -> str:
    """Take a job through its life without a worker; gives its id."""
    job = make_job("ask", {"prompt": task}, source="rest")
    bridge.submit(job)
    fetched = bridge.scripts.fetch("w1", "jobs", room=1, delivery=job.job_id, lease_ms=60_000)
    assert fetched.jobs[0].job_id == job.job_id
    report = bridge.scripts.report_command(
        *("w1", job.job_id, job.job_id),
        percent="50",
        message="half",
        output=[("out", f"output of {task}\n")],
        bundle=1,
    )
    bridge.scripts.run_many([report])
    bridge.scripts.settle("w1", job.job_id, job.job_id, Settlement(outcome=outcome, result=result, reason=""))
    return job.job_id


def forget(bridge: Bridge) -> None:
    """Let all ended jobs expire from the store."""
    for state in ("completed", "failed", "cancelled"):
        bridge.scripts.purge(state, 1000)


def test_a_job_looks_the_same_before_and_after_it_moved(bridge: Bridge, archivist: Archivist) -> None:
    """Record, receipt and output come from the store first and then, byte for byte, from the history."""
    job_id = carry_out(bridge)
    assert archivist.archive() == 1
    before = Catalog(bridge)
    record, receipt = before.job(job_id), before.receipt(job_id)
    forget(bridge)
    after = Catalog(bridge)
    assert after.job(job_id[:12]).to_json() == record.to_json()
    assert msgspec.json.encode(after.receipt(job_id[-9:])) == msgspec.json.encode(receipt)
    assert after.past_output(job_id) == "output of x\n"
    assert [item.to_json() for item in after.page(Narrowing()).jobs] == [record.to_json()]
    with pytest.raises(JobNotFound):
        after.job("zzzzzz")


def test_each_job_is_archived_once_and_a_retried_one_anew(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """A second round finds nothing; a job that ended again replaces its row."""
    job_id = carry_out(bridge, outcome="failed")
    assert archivist.archive() == 1
    assert archivist.archive() == 0
    bridge.scripts.requeue(job_id, "again")
    bridge.scripts.fetch("w2", "jobs", room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w2", job_id, "d", Settlement(outcome="completed", result=b"2"))
    assert archivist.archive() == 1
    assert history.count() == 1
    found = history.job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("completed", 2)


def test_pages_run_through_store_and_history_as_one_list(bridge: Bridge, archivist: Archivist) -> None:
    """Every job comes once, in one order, whichever of the two it is in."""
    ids = [carry_out(bridge, str(number)) for number in range(7)]
    archivist.archive()
    forget(bridge)
    ids += [carry_out(bridge, str(number)) for number in range(7, 11)]
    archivist.archive()
    ids += [bridge.submit(make_job("ask", {"prompt": "waiting"})).job_id for _ in range(3)]
    catalog = Catalog(bridge)
    for limit in (1, 2, 3, 5, 100):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = catalog.page(Narrowing(), limit=limit, cursor=cursor)
            seen += [record.job_id for record in page.jobs]
            cursor = page.next
            if cursor is None:
                break
        assert seen == sorted(ids, reverse=True)
    assert len(list(catalog.every(Narrowing()))) == 14


def test_lists_are_narrowed(bridge: Bridge, archivist: Archivist) -> None:
    """By state, type, door, day and words; words are taken as they stand."""
    good = carry_out(bridge, 'fix the "login" button')
    bad = carry_out(bridge, "other thing", outcome="failed")
    archivist.archive()
    forget(bridge)
    waiting = bridge.submit(make_job("ask", {"prompt": "login again"}, source="cli")).job_id
    catalog = Catalog(bridge)

    def ids(**wanted: str) -> list[str]:
        return [record.job_id for record in catalog.page(Narrowing(**wanted)).jobs]

    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert ids(status="failed") == [bad]
    assert ids(job_type="ask") == sorted([good, bad, waiting], reverse=True)
    assert ids(job_type="shell.cmd") == []
    assert ids(source="rest") == sorted([good, bad], reverse=True)
    assert ids(day=day) == sorted([good, bad, waiting], reverse=True)
    assert ids(day="2001-01-01") == []
    assert ids(text="LOGIN") == [waiting, good]
    assert ids(text='"login" button') == [good]
    assert ids(text="login AND NOT -button*") == []
    with pytest.raises(InvalidJob, match="no cursor of this list"):
        catalog.page(Narrowing(), cursor="s:3")
    with pytest.raises(AmbiguousJobId):
        catalog.resolve(good[:2])


def test_search_has_pages(bridge: Bridge, archivist: Archivist) -> None:
    """Each match comes once."""
    ids = [carry_out(bridge, f"apple {number}") for number in range(5)]
    archivist.archive()
    forget(bridge)
    catalog = Catalog(bridge)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = catalog.page(Narrowing(text="apple"), limit=2, cursor=cursor)
        seen += [record.job_id for record in page.jobs]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)


def some_row(number: int, ended_ms: int) -> Row:
    """A row as a job leaves it."""
    job = make_job("task.custom", {"task": f"task {number}"}, project=f"p{number % 10}")
    receipt = new_receipt(job, status="completed", at_ms=ended_ms, input_sha256="0" * 64)
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
    return Row(record=record, receipt=receipt, ended_ms=ended_ms)


def test_old_and_excess_rows_go(tmp_path: Path) -> None:
    """By age and by number, some at a time; their words go with them."""
    history = History(tmp_path / "h.db", writable=True)
    history.put([some_row(number, 1000 + number) for number in range(20)], {})
    assert history.expire(until_ms=1005, rows_max=100) == 5
    assert history.expire(until_ms=0, rows_max=10, limit=3) == 3
    assert history.expire(until_ms=0, rows_max=10) == 2
    assert history.expire(until_ms=0, rows_max=10) == 0
    assert history.count() == 10
    assert history.search(Narrowing(text="task 3"), limit=5) == []


def test_a_history_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """The older program says so instead of spoiling it; what is no database is named too."""
    with sqlite3.connect(tmp_path / "h.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryBroken, match="version 99"):
        History(tmp_path / "h.db", writable=True)
    (tmp_path / "x.db").write_bytes(b"no database at all, but long enough to be one" * 10)
    with pytest.raises(HistoryBroken, match="cannot be used"):
        History(tmp_path / "x.db", writable=True)


def test_a_crash_in_the_middle_leaves_no_gap(bridge: Bridge, archivist: Archivist, history: History) -> None:
    """Rows and place are one transaction: what was not committed is read again."""
    ids = [carry_out(bridge, str(number)) for number in range(3)]
    places = history.places()
    archivist.archive()
    with sqlite3.connect(bridge.loaded.workspace.history_db) as db:
        db.execute("DELETE FROM jobs WHERE job_id = ?", (ids[2],))
        db.execute("DELETE FROM places")
    assert history.places() == places == {}
    assert archivist.archive() == 1
    assert history.count() == 3
