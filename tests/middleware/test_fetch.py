"""Giving jobs out: by priority and arrival, over any number of workers, each job to one of them."""

from __future__ import annotations

import random

from middleware.job.states import State
from tests.middleware.driver import Driver


def test_a_fetched_job_is_stamped_and_fenced(driver: Driver) -> None:
    """It stands on the worker's processing set with its delivery, and says who runs it since when."""
    job_id = driver.add()
    before_ms = driver.now_ms()
    fetched = driver.fetch_raw("w1", token="d-1")
    job = fetched.jobs[0]
    assert (job.job_id, job.attempt, job.base_attempt) == (job_id, 1, 0)
    assert job.created_ms <= before_ms
    assert driver.store.call("HGET", driver.keys.processing("w1"), job_id) == b"d-1"
    assert driver.places(job_id) == [State.PROCESSING]
    assert before_ms <= int(str(driver.field(job_id, "started"))) <= driver.now_ms()
    assert driver.field(job_id, "worker") == "w1"
    record = driver.job(job_id)
    assert [(item.attempt, item.worker_id, item.status) for item in record.attempts] == [
        (1, "w1", "processing")
    ]


def test_an_empty_queue_gives_nothing(driver: Driver) -> None:
    """No job, no due time, but a renewed lease."""
    fetched = driver.fetch_raw("w1", lease_ms=60_000)
    assert (fetched.jobs, fetched.next_due_ms) == ([], -1)
    assert float(driver.store.call("ZSCORE", driver.keys.workers, "w1")) > driver.now_ms() + 50_000


def test_never_more_than_there_is_room_for(driver: Driver) -> None:
    """The rest waits for others."""
    driver.offer(*[driver.request() for _ in range(7)])
    assert len(driver.fetch(room=3)) == 3
    assert len(driver.fetch("w2", room=9)) == 4


def test_priorities_hold_over_several_workers(driver: Driver) -> None:
    """Every worker gets the most urgent job first, and jobs of equal priority in order of arrival."""
    numbers = random.Random(7)  # noqa: S311 (a fixed order of arrival)
    wanted = [(numbers.randint(1, 10), at) for at in range(120)]
    ids = {driver.add(priority=priority): (priority, at) for priority, at in wanted}
    given: list[tuple[int, int]] = []
    while got := driver.fetch(f"w{numbers.randint(1, 4)}", room=numbers.randint(1, 5)):
        given.extend(ids[item.job_id] for item in got)
    assert given == sorted(wanted)


def test_an_urgent_late_comer_overtakes(driver: Driver) -> None:
    """Priority goes before arrival, to both ends of its range."""
    last, usual = driver.add(priority=10), driver.add(priority=5)
    first = driver.add(priority=1)
    assert [driver.take().job_id for _ in range(3)] == [first, usual, last]


def test_a_job_goes_to_one_worker_only(driver: Driver) -> None:
    """Two workers that ask in turn share the jobs out."""
    ids = [driver.add() for _ in range(20)]
    given = [driver.take(f"w{at % 2}").job_id for at in range(20)]
    assert sorted(given) == sorted(ids)
    assert not set(driver.held_by("w0")) & set(driver.held_by("w1"))


def test_a_lost_reply_is_given_again(driver: Driver) -> None:
    """The same jobs, the same attempt, nothing new and nothing started twice."""
    first, second = driver.add(), driver.add()
    driver.add()
    got = driver.fetch("w1", room=2, token="d-1")
    again = driver.fetch("w1", room=2, token="d-1")
    assert [item.job_id for item in got] == [first, second]
    assert sorted((item.job_id, item.attempt) for item in again) == sorted((i.job_id, 1) for i in got)
    assert driver.chain(first) == ["queued", "processing"]
    assert len(driver.held_by("w1")) == 2


def test_a_repeat_after_an_empty_reply_is_a_new_fetch(driver: Driver) -> None:
    """If the lost reply had given nothing, the repeat gives what is there now."""
    assert driver.fetch("w1", token="d-1") == []
    job_id = driver.add()
    assert [item.job_id for item in driver.fetch("w1", token="d-1")] == [job_id]


def test_a_repeat_gives_only_the_lost_delivery(driver: Driver) -> None:
    """What the worker holds from other fetches is not given a second time."""
    driver.add()
    driver.take("w1", token="d-1")
    second = driver.add()
    driver.take("w1", token="d-2")
    assert [item.job_id for item in driver.fetch("w1", token="d-2")] == [second]


def test_a_repeat_does_not_give_what_was_recovered_meanwhile(driver: Driver) -> None:
    """A job that went to another worker stays there."""
    job_id = driver.add()
    driver.take("w1", token="d-1", lease_ms=-1)
    driver.recover_lapsed()
    driver.take("w2")
    assert driver.fetch("w1", token="d-1") == []
    assert driver.held_by("w2") == [job_id]


def test_the_last_fetch_silences_the_bell(driver: Driver) -> None:
    """With nothing left no token wakes anybody for nothing; with something left one does."""
    driver.offer(*[driver.request() for _ in range(3)])
    driver.store.call("DEL", driver.keys.bell())
    driver.fetch(room=2)
    assert driver.bell() == 1
    driver.fetch(room=1)
    assert driver.bell() == 0


def test_fetch_promotes_what_is_due(driver: Driver) -> None:
    """A due job starts with the next fetch even if ``promote`` did not run."""
    job_id = driver.add(delay_ms=2)
    driver.pass_ms(3)
    assert driver.take().job_id == job_id
    assert driver.chain(job_id) == ["scheduled", "queued", "processing"]


def test_fetch_says_when_the_next_job_is_due(driver: Driver) -> None:
    """The nearest of all delays and retries counts."""
    driver.add(delay_ms=90_000)
    driver.add()
    driver.settle(driver.take(), "retrying", delay_ms=30_000)
    assert 20_000 < driver.fetch_raw().next_due_ms <= 30_000


def test_due_jobs_keep_their_priority(driver: Driver) -> None:
    """A promoted job lines up by its priority, behind those of the same that are there already."""
    late = driver.add(delay_ms=1, priority=5)
    usual, urgent = driver.add(priority=5), driver.add(priority=1)
    driver.pass_ms(2)
    assert [driver.take().job_id for _ in range(3)] == [urgent, usual, late]


def test_promote_is_bounded_and_says_that_more_is_due(driver: Driver) -> None:
    """One call moves at most so many; 0 says that the next one is due already."""
    driver.offer(*[driver.request(delay_ms=1) for _ in range(5)])
    driver.pass_ms(2)
    assert driver.scripts.promote(limit=3) == 0
    assert driver.scripts.promote(limit=3) == -1
    assert len(driver.fetch(room=9)) == 5


def test_a_job_that_was_deleted_from_the_store_is_passed_over(driver: Driver) -> None:
    """An id whose record an operator deleted does not block the others."""
    driver.store.call("ZADD", driver.keys.state(State.QUEUED), 1, "ghost")
    job_id = driver.add()
    assert driver.take(room=1).job_id == job_id


def test_attempts_count_each_start(driver: Driver) -> None:
    """A retry is a new attempt; one that was handed back is not counted."""
    job_id = driver.add()
    driver.settle(driver.take(), "queued")
    assert driver.job(job_id).attempt == 0
    driver.settle(driver.take(), "retrying", delay_ms=1)
    driver.pass_ms(2)
    assert driver.take().attempt == 2
