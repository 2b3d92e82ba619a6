"""Ended jobs go from the store into the history and look the same there."""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingress.catalog import Catalog
from ingress.dispatch import Bridge
from middleware.archive.archivist import BATCH, Archivist
from middleware.archive.history import History, Narrowing, Row, id_queries
from middleware.broker.scripts import Settlement
from middleware.job.ids import new_job_id
from middleware.job.records import JobRecord, new_receipt
from middleware.job.schema import make_job
from middleware.job.states import State
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
    listed = [item.to_json() for item in bridge.reader.page().jobs]
    assert [item.to_json() for item in before.page(Narrowing()).jobs] == listed
    forget(bridge)
    after = Catalog(bridge)
    assert after.job(job_id[:12]).to_json() == record.to_json()
    assert msgspec.json.encode(after.receipt(job_id[-9:])) == msgspec.json.encode(receipt)
    assert after.past_output(job_id) == "output of x\n"
    assert [(piece.stream, piece.text) for piece in after.past_pieces(job_id)] == [("out", "output of x\n")]
    assert [item.to_json() for item in after.page(Narrowing()).jobs] == listed
    assert [item.to_json() for item in after.every(Narrowing())] == [record.to_json()]
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
    assert history.search(Narrowing(text="task 3"), limit=5, below=1000) == []


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


FILTERS = {"status": "failed", "job_type": "ask", "project": "p3", "source": "cli", "day": "2026-01-01"}


@pytest.mark.parametrize("count", range(6))
def test_no_combination_of_filters_walks_over_rows_or_sorts_them(tmp_path: Path, count: int) -> None:
    """Each query of a page reads one index from where it begins, already in order."""
    with History(tmp_path / "h.db", writable=True) as history:
        history.put([some_row(number, 1000 + number) for number in range(20)], {})
        for names in itertools.combinations(FILTERS, count):
            narrowing = Narrowing(**{name: FILTERS[name] for name in names})
            for query, values in id_queries(narrowing, [1]):
                plan = history._db.execute(f"EXPLAIN QUERY PLAN {query}", (*values, "~", 50)).fetchall()
                (step,) = [row[3] for row in plan]
                assert step.startswith("SEARCH jobs USING COVERING INDEX"), (names, step)
                assert step.endswith("job_id<?)"), (names, step)


@pytest.mark.parametrize("seed", range(3))
def test_pages_of_the_history_are_what_a_filter_over_all_gives(tmp_path: Path, seed: int) -> None:
    """Whatever the filters, the pages together are the rows that fit, the latest id first."""
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
                narrowing = Narrowing(**{name: FILTERS[name] for name in names})
                fitting = [row.record for row in rows if narrowing.fits(row.record)]
                seen: list[JobRecord] = []
                below: str | None = None
                while page := history.page(narrowing, limit=7, below=below):
                    seen += [past.record for past in page]
                    below = page[-1].record.job_id
                assert seen == sorted(fitting, key=lambda record: record.job_id, reverse=True), names
                found = history.search(msgspec.structs.replace(narrowing, text="task"), limit=300, below=1000)
                assert {past.record.job_id for past in found} == {record.job_id for record in fitting}, names


def test_what_is_written_anew_uses_up_no_room(tmp_path: Path) -> None:
    """As many rows are kept as may be, however often they were written."""
    with History(tmp_path / "h.db", writable=True) as history:
        rows = [some_row(number, 1000 + number) for number in range(10)]
        for _ in range(5):
            history.put(rows, {})
        assert history.expire(until_ms=0, rows_max=10) == 0
        assert (history.count(), history.last_number()) == (10, 10)


def test_a_result_that_arrives_later_is_in_the_history_too(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """The job is archived at its end, and once more when its delivery has ended."""
    job = make_job("ask", {"prompt": "x"})
    bridge.submit(job)
    assert bridge.intake.request(job).sinks
    bridge.scripts.fetch("w1", "jobs", room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w1", job.job_id, "d", Settlement(outcome="completed", result=b"1"))
    assert archivist.archive() == 1
    assert archivist.archive() == 0

    def archived() -> list[str]:
        found = history.job(job.job_id)
        assert found is not None
        return [item.status for item in found.deliveries]

    assert archived() == ["queued"]
    (delivery,) = bridge.scripts.fetch("w2", "deliver", room=1, delivery="e", lease_ms=60_000).jobs
    assert archivist.archive() == 0
    bridge.scripts.settle("w2", delivery.job_id, "e", Settlement(outcome="completed", result=b"1"))
    assert archivist.archive() == 1
    assert archived() == ["completed"]
    assert archivist.archive() == 0
    whole = bridge.reader.job(job.job_id)
    forget(bridge)
    bridge.scripts.purge("completed", 10, queue="deliver")
    assert Catalog(bridge).job(job.job_id) == whole


def test_a_job_that_runs_again_is_listed_as_it_is_now(bridge: Bridge, archivist: Archivist) -> None:
    """In no list does it stand as it was, and in none twice."""
    again, other = carry_out(bridge, "apple", outcome="failed"), carry_out(bridge, "apple", outcome="failed")
    archivist.archive()
    bridge.scripts.requeue(again, "again")
    catalog = Catalog(bridge)

    def statuses(**wanted: str) -> dict[str, str]:
        jobs = [job for limit in (1, 10) for job in every(catalog, Narrowing(**wanted), limit)]
        assert len(jobs) == 2 * len({job.job_id for job in jobs})
        return {job.job_id: job.status for job in jobs}

    both = {again: "queued", other: "failed"}
    assert statuses() == statuses(text="apple") == statuses(day=today()) == both
    assert statuses(status="failed") == statuses(status="failed", text="apple") == {other: "failed"}
    assert statuses(status="queued") == {again: "queued"}
    bridge.scripts.fetch("w2", "jobs", room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w2", again, "d", Settlement(outcome="completed", result=b"2"))
    both[again] = "completed"
    for _ in range(2):
        assert statuses() == statuses(text="apple") == statuses(day=today()) == both
        assert statuses(status="completed") == {again: "completed"}
        archivist.archive()


def test_words_are_the_same_in_store_and_history(bridge: Bridge, archivist: Archivist) -> None:
    """What a search finds before a job is archived it finds afterwards, and nothing else."""
    job_id = carry_out(bridge, "Fix the «Login-Button», naïve approach: 50%")
    words = ["login", "LOGIN-button", "naive", "50", "the fix", "- login", "butt", "login fix -", "zebra"]
    catalog = Catalog(bridge)

    def found() -> list[bool]:
        return [bool(catalog.page(Narrowing(text=text)).jobs) for text in words]

    before = found()
    assert before == [True, True, True, True, True, True, False, True, False]
    archivist.archive()
    assert found() == before
    forget(bridge)
    assert found() == before
    assert catalog.page(Narrowing(text=job_id)).jobs[0].job_id == job_id
    with pytest.raises(InvalidJob, match="no word"):
        catalog.page(Narrowing(text="- ;"))


def test_a_search_gives_those_first_that_only_the_store_has(bridge: Bridge, archivist: Archivist) -> None:
    """Page by page, each once, also when one is archived between two pages."""
    past = [carry_out(bridge, f"apple {number}") for number in range(3)]
    archivist.archive()
    live = sorted(bridge.submit(make_job("ask", {"prompt": "apple"})).job_id for _ in range(3))
    catalog = Catalog(bridge)
    first = catalog.page(Narrowing(text="apple"), limit=2)
    assert [job.job_id for job in first.jobs] == live[:0:-1]
    bridge.scripts.cancel(live[2], "enough")
    assert archivist.archive() == 1
    rest = every(catalog, Narrowing(text="apple"), 2, first.next)
    assert rest[0].job_id == live[0]
    assert sorted(job.job_id for job in rest[1:]) == sorted(past)


def test_the_end_of_a_long_output_is_kept(bridge: Bridge, archivist: Archivist) -> None:
    """Of its last pieces so many bytes, on which stream each, and never half a letter."""
    job = make_job("ask", {"prompt": "x"})
    bridge.submit(job)
    bridge.scripts.fetch("w1", "jobs", room=1, delivery="d", lease_ms=60_000)
    pieces = [("out" if number % 2 else "err", f"{number:03} äöü\n") for number in range(500)]
    bridge.scripts.run_many(
        [
            bridge.scripts.report_command(
                "w1", job.job_id, "d", percent="", message="", output=pieces, bundle=1
            )
        ]
    )
    bridge.scripts.settle("w1", job.job_id, "d", Settlement(outcome="completed", result=b"1"))
    archivist.archive()
    catalog = Catalog(bridge)
    kept = catalog.past_pieces(job.job_id)
    text = "".join(piece.text for piece in kept)
    assert "".join(text for _, text in pieces).endswith(text)
    assert 990 < len(text.encode()) <= 1000
    assert [(piece.stream, piece.text) for piece in kept[1:]] == pieces[-len(kept) + 1 :]
    assert catalog.past_pieces(job.job_id, after=kept[5].entry_id, limit=2) == kept[6:8]


def test_what_another_version_wrote_does_not_hold_up_the_others(bridge: Bridge, archivist: Archivist) -> None:
    """A job that cannot be read is archived as far as it can be."""
    odd, good = carry_out(bridge, "odd"), carry_out(bridge, "good")
    bridge.store.call("HSET", bridge.reader.keys.job(odd), "spec", '{"job_type":"of.tomorrow"}')
    assert archivist.archive() == 2
    forget(bridge)
    catalog = Catalog(bridge)
    assert catalog.job(odd).job_type == "of.tomorrow"
    assert catalog.receipt(odd).transitions[-1].status == "completed"
    assert catalog.job(good).job_type == "ask"


def test_a_store_whose_clock_went_back_is_archived(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """A place in the future counts as now."""
    history.put([], {"completed": (int(time.time()) + 3600) * 1000})
    job_id = carry_out(bridge)
    assert archivist.archive() == 1
    assert history.job(job_id) is not None
    assert history.places()["completed"] <= int(time.time() * 1000) + 1000


def test_more_than_a_batch_is_archived_batch_by_batch(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """All of them in the end, each counted once, although many ended in the same millisecond."""
    jobs = [make_job("ask", {"prompt": str(number)}) for number in range(2 * BATCH + 50)]
    bridge.intake.submit(jobs)
    for job in jobs:
        bridge.scripts.cancel(job.job_id, "enough")
    key = bridge.reader.keys.state(State.CANCELLED)
    at_ms = int(time.time() * 1000)
    for job in jobs:
        bridge.store.call("ZADD", key, at_ms, job.job_id)
        bridge.store.call("HSET", bridge.reader.keys.job(job.job_id), "completed", at_ms)
    written = []
    while some := archivist.archive():
        written.append(some)
    assert sum(written) == len(jobs) == history.count()
    assert len(written) > 1


def every(catalog: Catalog, narrowing: Narrowing, limit: int, cursor: str | None = None) -> list[JobRecord]:
    """Page through a list to its end."""
    seen: list[JobRecord] = []
    while True:
        page = catalog.page(narrowing, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        seen += page.jobs
        cursor = page.next
        if cursor is None:
            return seen


def today() -> str:
    """Give the day, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())
