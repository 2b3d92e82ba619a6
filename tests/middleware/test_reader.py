"""The read side: short ids, pages without gaps or repeats, receipts and records of odd jobs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from middleware.job.ids import new_job_id
from middleware.job.keys import Keys
from middleware.job.records import JobRecord
from middleware.job.states import State
from ops.errors import AmbiguousJobId, InvalidJob, JobNotFound
from tests.middleware.driver import Driver


def walk(driver: Driver, *, limit: int, **filters: Any) -> list[JobRecord]:
    """Turn all pages; each but the last is full, and the walk ends."""
    jobs: list[JobRecord] = []
    cursor: str | None = None
    for _ in range(1000):
        page = driver.reader.page(limit=limit, cursor=cursor, **filters)
        assert len(page.jobs) <= limit
        jobs.extend(page.jobs)
        cursor = page.next
        if cursor is None:
            return jobs
    pytest.fail("the pages have no end")


def finish(driver: Driver, job_ids: list[str], at_ms: list[int]) -> None:
    """Run jobs to their end and set the times at which that was."""
    for _ in job_ids:
        driver.settle(driver.take())
    key = driver.keys.state(State.COMPLETED)
    for job_id, moment_ms in zip(job_ids, at_ms, strict=True):
        driver.store.call("ZADD", key, moment_ms, job_id)


def test_a_job_is_found_by_prefix_and_suffix(driver: Driver) -> None:
    """Any part from either end that only one job has, in any case, also behind an agent's name."""
    first = driver.add("01aaaaaaaaxxxxxxxx01")
    driver.add("01abbbbbbbyyyyyyyy02")
    for part in (first, "01aa", "1", "01", first.upper(), f"agent:demo:{first}", f"r-{first}", " 01aa "):
        if part in {"01", "1"}:
            continue
        assert driver.reader.resolve(part) == first
    assert driver.reader.resolve("x01") == first
    assert driver.reader.resolve("1") == first


def test_an_id_of_another_making_is_found_whole(driver: Driver) -> None:
    """A program may give ids of its own to ``dispatch``; a delivery's id names no job."""
    made = driver.add("Nightly_backup-7", sinks="out/completed")
    driver.settle(driver.take())
    assert driver.reader.resolve(made) == made
    assert driver.status(f"{made}-1") == "queued"
    for part in ("nightly_backup-7", "Nightly_backup", f"{made}-1", "x" * 65):
        with pytest.raises(JobNotFound):
            driver.reader.resolve(part)


def test_a_part_that_fits_two_jobs_is_refused_with_both(driver: Driver) -> None:
    """Two prefixes, two suffixes, or one of each."""
    first, second = driver.add("01aaaaaaaaxxxxxxxx77"), driver.add("01abbbbbbbyyyyyyyy77")
    third = driver.add("77cccccccccccccccccc")
    for part, fitting in (("01a", {first, second}), ("77", {first, second, third})):
        with pytest.raises(AmbiguousJobId) as caught:
            driver.reader.resolve(part)
        assert all(job_id in caught.value.message for job_id in fitting)
        assert caught.value.remedy == "Use more characters of the id."
        assert caught.value.exit_code == 2


def test_a_whole_id_is_never_ambiguous(driver: Driver) -> None:
    """Even if another job's id ends or begins like it."""
    job_id = driver.add("0123456789abcdefghjk")
    assert driver.reader.resolve(job_id) == job_id


@pytest.mark.parametrize("part", ["zzz", "", "no such!", "*", "a" * 21, "agent:demo:"])
def test_what_fits_no_job_is_not_found(driver: Driver, part: str) -> None:
    """Exit code 4, and a way to find the right one."""
    driver.add("0123456789abcdefghjk")
    with pytest.raises(JobNotFound) as caught:
        driver.reader.resolve(part)
    assert caught.value.exit_code == 4
    assert "3ox jobs" in caught.value.remedy


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_walk_every_job_once_newest_first(driver: Driver, limit: int) -> None:
    """Whatever the page size."""
    ids = sorted(driver.add(new_job_id(1_000 + at // 2)) for at in range(20))
    assert [job.job_id for job in walk(driver, limit=limit)] == ids[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "filters", [{"job_type": "task.custom"}, {"project": "demo"}], ids=["type", "project"]
)
def test_pages_of_a_type_or_project_hold_exactly_those(
    driver: Driver, limit: int, filters: dict[str, str]
) -> None:
    """Mixed with others, none is missing and none is strange."""
    wanted = []
    for at in range(15):
        driver.add(new_job_id(2_000 + at))
        wanted.append(driver.add(new_job_id(1_000 + at), job_type="task.custom", project="demo"))
    assert [job.job_id for job in walk(driver, limit=limit, **filters)] == wanted[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_a_state_walk_equal_times_once(driver: Driver, limit: int) -> None:
    """Jobs that ended in the same millisecond are neither skipped nor repeated at a page's end."""
    ids = [driver.add() for _ in range(12)]
    finish(driver, ids, [100, 100, 100, 100, 100, 101, 102, 102, 102, 103, 104, 104])
    got = [job.job_id for job in walk(driver, limit=limit, status="completed")]
    assert sorted(got) == sorted(ids)
    assert set(got[:3]) == {ids[9], ids[10], ids[11]}, "latest first"


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_pages_of_every_state_hold_exactly_those(driver: Driver, limit: int) -> None:
    """Waiting, scheduled, held, running and ended jobs are each listed by their state."""
    driver.add(limits="gpu=1/1")
    driver.take()
    for _ in range(3):
        driver.add(limits="gpu=1/1")
        driver.fetch()
        driver.add(delay_ms=60_000)
        driver.run()
        driver.run("failed")
    first = driver.add()
    driver.scripts.cancel(driver.add(delay_ms=60_000), "test")
    wanted = {
        "processing": 1,
        "held": 3,
        "scheduled": 3,
        "completed": 3,
        "failed": 3,
        "queued": 1,
        "cancelled": 1,
    }
    for status, count in wanted.items():
        jobs = walk(driver, limit=limit, status=status)
        assert {job.status for job in jobs} == {status}
        assert len({job.job_id for job in jobs}) == len(jobs) == count
    assert driver.reader.page(status="queued").jobs[0].job_id == first
    assert driver.reader.summary() == {**dict.fromkeys(map(str, State), 0), **wanted}


def test_filters_combine(driver: Driver) -> None:
    """State, type and project together."""
    numbers = random.Random(3)  # noqa: S311 (the same mixture each time)
    wanted = set()
    for _ in range(40):
        project, outcome = numbers.choice(["demo", "other"]), numbers.choice(["completed", "failed"])
        job_id = driver.add(job_type=numbers.choice(["task.custom", "heartbeat"]), project=project)
        driver.settle(driver.take(), outcome)
        record = driver.job(job_id)
        if (record.job_type, project, outcome) == ("task.custom", "demo", "failed"):
            wanted.add(job_id)
    got = walk(driver, limit=4, status="failed", job_type="task.custom", project="demo")
    assert {job.job_id for job in got} == wanted
    assert len(got) == len(wanted)


def test_new_jobs_do_not_disturb_a_walk(driver: Driver) -> None:
    """What comes in while pages are turned changes nothing of the older ones."""
    ids = sorted(driver.add(new_job_id(1_000 + at)) for at in range(6))
    page = driver.reader.page(limit=3)
    driver.add(new_job_id(9_000))
    rest = driver.reader.page(limit=9, cursor=page.next)
    assert [job.job_id for job in [*page.jobs, *rest.jobs]] == ids[::-1]


@pytest.mark.parametrize(
    ("filters", "field"), [({"status": "running"}, "status"), ({"job_type": "shell"}, "type")]
)
def test_unknown_filters_are_refused_with_the_known_ones(
    driver: Driver, filters: dict[str, str], field: str
) -> None:
    """A misspelt state or type is an error, not an empty list."""
    with pytest.raises(InvalidJob) as caught:
        driver.reader.page(**filters)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert "Use one of" in caught.value.remedy


def test_a_job_of_a_type_that_is_not_known_here_does_not_hide_the_others(driver: Driver) -> None:
    """One job written by a newer version, and the list still shows all the rest."""
    job_id, strange = driver.add(), driver.add()
    driver.store.call("HSET", driver.keys.job(strange), "spec", '{"job_type":"newer.kind","payload":{}}')
    assert job_id in {job.job_id for job in driver.reader.page().jobs}


def test_a_record_has_every_field_of_the_interface(driver: Driver) -> None:
    """In JSON as in Python; times are RFC 3339 with milliseconds, UTC."""
    job_id = driver.run(result=b'{"n":1}')
    record = driver.job(job_id)
    fields = (
        "job_id trace_id job_type status source actor project session_id priority progress progress_message "
        "attempt crashes max_retries worker_id payload result error created_at queued_at started_at "
        "completed_at due_at depends_on receipt_id reason"
    )
    assert set(fields.split()) <= set(record.__struct_fields__)
    assert b'"result":{"n":1}' in record.to_json()
    times = [record.created_at, record.queued_at, record.started_at, record.completed_at]
    assert times == sorted(str(moment) for moment in times)
    assert all(str(moment)[-5] == "." and str(moment).endswith("Z") for moment in times)


def test_what_is_not_there_is_not_found(driver: Driver) -> None:
    """A record, a receipt and a status of no job."""
    with pytest.raises(JobNotFound):
        driver.reader.job("0123456789abcdefghjk")
    with pytest.raises(JobNotFound):
        driver.reader.receipt("0123456789abcdefghjk")
    assert driver.reader.status_of("0123456789abcdefghjk") is None


def test_key_names_of_python_and_lua_agree(driver: Driver) -> None:
    """Every key that the scripts write is one that ``Keys`` can name."""
    keys = Keys(driver.prefix)
    job_id = driver.add(job_type="task.custom", project="demo", limits="gpu=1/1")
    driver.add()
    delivery = driver.take()
    driver.scripts.beat("w1", 60_000, {"pid": 1})
    named = {
        keys.job(job_id),
        keys.receipts(job_id),
        keys.index_all,
        keys.index_tail,
        keys.index_type("task.custom"),
        keys.index_project("demo"),
        keys.processing("w1"),
        keys.heartbeat("w1"),
        keys.workers,
        keys.events,
        keys.running,
        keys.bell(),
        keys.state(State.QUEUED),
        keys.state(State.PROCESSING),
    }
    assert delivery.job_id == job_id
    assert all(driver.store.call("EXISTS", key) == 1 for key in named)


def test_a_job_of_a_newer_version_is_shown_as_far_as_it_can_be_read(driver: Driver) -> None:
    """Record and receipt name its type and its state; nothing else of it is made up."""
    job_id = driver.add()
    spec = b'{"job_type":"newer.kind","payload":{"a":1},"newer_field":1}'
    driver.store.call("HSET", driver.keys.job(job_id), "spec", spec)
    record, receipt = driver.job(job_id), driver.reader.receipt(job_id)
    assert (record.job_type, record.status, record.source) == ("newer.kind", "queued", "unknown")
    assert (receipt.job_type, receipt.status, receipt.job_id) == ("newer.kind", "queued", job_id)
    driver.store.call("HSET", driver.keys.job(job_id), "spec", b"{")
    assert driver.job(job_id).job_type == "unknown"
