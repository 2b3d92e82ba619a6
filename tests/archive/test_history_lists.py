"""Lists and searches cover store and history as one."""

from __future__ import annotations

import time

import pytest

from ingress.core.listing import Catalog
from ingress.core.lookup import find
from ingress.dispatch import Bridge
from middleware.archive.archivist import Archivist
from middleware.archive.history import JobFilter
from middleware.broker.transitions import Settlement
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from ops.errors import AmbiguousJobId, InvalidJob
from tests.archive.lives import ASK_QUEUE, carry_out, forget


def test_pages_run_through_store_and_history_as_one_list(bridge: Bridge, archivist: Archivist) -> None:
    """Every job is listed once, in one order, wherever it is."""
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
            page = catalog.page(JobFilter(), limit=limit, cursor=cursor)
            seen += [record.job_id for record in page.jobs]
            cursor = page.next
            if cursor is None:
                break
        assert seen == sorted(ids, reverse=True)
    assert len(list(catalog.every(JobFilter()))) == 14


def test_lists_are_filtered(bridge: Bridge, archivist: Archivist) -> None:
    """By state, type, source, day and words; words are matched literally."""
    good = carry_out(bridge, 'fix the "login" button')
    bad = carry_out(bridge, "other thing", outcome="failed")
    archivist.archive()
    forget(bridge)
    with pytest.raises(AmbiguousJobId):
        find(bridge, good[:2])
    waiting = bridge.submit(make_job("ask", {"prompt": "login again"}, source="cli")).job_id
    catalog = Catalog(bridge)

    def ids(**wanted: str) -> list[str]:
        return [record.job_id for record in catalog.page(JobFilter(**wanted)).jobs]

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
    with pytest.raises(InvalidJob, match="is not valid for this list"):
        catalog.page(JobFilter(), cursor="s:3")


def test_search_has_pages(bridge: Bridge, archivist: Archivist) -> None:
    """Each match is listed once."""
    ids = [carry_out(bridge, f"apple {number}") for number in range(5)]
    archivist.archive()
    forget(bridge)
    catalog = Catalog(bridge)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = catalog.page(JobFilter(text="apple"), limit=2, cursor=cursor)
        seen += [record.job_id for record in page.jobs]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)


def test_a_job_that_runs_again_is_listed_as_it_is_now(bridge: Bridge, archivist: Archivist) -> None:
    """No list has its old state, and none has it twice."""
    again, other = carry_out(bridge, "apple", outcome="failed"), carry_out(bridge, "apple", outcome="failed")
    archivist.archive()
    bridge.scripts.requeue(again, "again")
    catalog = Catalog(bridge)

    def statuses(**wanted: str) -> dict[str, str]:
        jobs = [job for limit in (1, 10) for job in every(catalog, JobFilter(**wanted), limit)]
        assert len(jobs) == 2 * len({job.job_id for job in jobs})
        return {job.job_id: job.status for job in jobs}

    both = {again: "queued", other: "failed"}
    assert statuses() == statuses(text="apple") == statuses(day=today()) == both
    assert statuses(status="failed") == statuses(status="failed", text="apple") == {other: "failed"}
    assert statuses(status="queued") == {again: "queued"}
    bridge.scripts.fetch("w2", ASK_QUEUE, room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w2", again, "d", Settlement(outcome="completed", result=b"2"))
    both[again] = "completed"
    for _ in range(2):
        assert statuses() == statuses(text="apple") == statuses(day=today()) == both
        assert statuses(status="completed") == {again: "completed"}
        archivist.archive()


def test_words_are_the_same_in_store_and_history(bridge: Bridge, archivist: Archivist) -> None:
    """A search finds the same before and after a job is archived."""
    job_id = carry_out(bridge, "Fix the «Login-Button», naïve approach: 50%")
    words = ["login", "LOGIN-button", "naive", "50", "the fix", "- login", "butt", "login fix -", "zebra"]
    catalog = Catalog(bridge)

    def found() -> list[bool]:
        return [bool(catalog.page(JobFilter(text=text)).jobs) for text in words]

    before = found()
    assert before == [True, True, True, True, True, True, False, True, False]
    archivist.archive()
    assert found() == before
    forget(bridge)
    assert found() == before
    assert catalog.page(JobFilter(text=job_id)).jobs[0].job_id == job_id
    with pytest.raises(InvalidJob, match="has no words"):
        catalog.page(JobFilter(text="- ;"))


def test_a_search_gives_those_first_that_only_the_store_has(bridge: Bridge, archivist: Archivist) -> None:
    """Page by page, each job once, also if one is archived between two pages."""
    past = [carry_out(bridge, f"apple {number}") for number in range(3)]
    archivist.archive()
    live = sorted(bridge.submit(make_job("ask", {"prompt": "apple"})).job_id for _ in range(3))
    catalog = Catalog(bridge)
    first = catalog.page(JobFilter(text="apple"), limit=2)
    assert [job.job_id for job in first.jobs] == live[:0:-1]
    bridge.scripts.cancel(live[2], "enough")
    assert archivist.archive() == 1
    rest = every(catalog, JobFilter(text="apple"), 2, first.next)
    assert rest[0].job_id == live[0]
    assert sorted(job.job_id for job in rest[1:]) == sorted(past)


def every(catalog: Catalog, filters: JobFilter, limit: int, cursor: str | None = None) -> list[JobRecord]:
    """Return all pages of a list as one list."""
    seen: list[JobRecord] = []
    while True:
        page = catalog.page(filters, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        seen += page.jobs
        cursor = page.next
        if cursor is None:
            return seen


def today() -> str:
    """Return the current day, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())
