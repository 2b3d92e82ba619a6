"""The end of a job makes its deliveries, in the same step, on a queue of their own."""

from __future__ import annotations

from typing import Any

import pytest

from middleware.broker.transitions import Bounds, Settlement
from middleware.job.keys import DELIVER_QUEUE
from middleware.job.schema import decode_job
from middleware.job.states import State
from tests.middleware.driver import Driver


def waiting(driver: Driver) -> list[str]:
    """Return the ids of the deliveries that wait."""
    key = driver.keys.state(State.QUEUED, DELIVER_QUEUE)
    return [item.decode() for item in driver.store.call("ZRANGE", key, 0, -1)]


def deliver(driver: Driver, outcome: str, **more: object) -> str:
    """Take the next delivery and end it; gives its id."""
    fence = driver.scripts.fetch("w9", DELIVER_QUEUE, room=1, delivery="d-x", lease_ms=60_000)
    job_id = fence.jobs[0].job_id
    driver.scripts.settle("w9", job_id, "d-x", Settlement(outcome=outcome, **more))  # type: ignore[arg-type]
    return job_id


@pytest.mark.parametrize(
    ("outcome", "numbers"),
    [("completed", ["-1", "-2"]), ("failed", ["-1", "-2"]), ("cancelled", ["-1"])],
)
def test_each_sink_that_wants_the_state_gets_one(driver: Driver, outcome: str, numbers: list[str]) -> None:
    """A sink names the states that it wants; the delivery names job and sink."""
    driver.add("a", sinks="outbox/*,notify:0/failed,hook:x/completed")
    driver.settle(driver.take(), outcome)
    assert waiting(driver) == [f"a{number}" for number in numbers]
    spec = driver.store.call("HGET", driver.keys.job("a-1"), "spec")
    job: Any = decode_job(spec)
    assert (job.job_type, job.payload.job_id, job.payload.sink, job.trace) == ("deliver", "a", "outbox", "a")


def test_a_job_without_sinks_has_no_delivery(driver: Driver) -> None:
    """Most jobs have none, and pay nothing."""
    driver.add("a")
    driver.settle(driver.take(), "completed")
    assert waiting(driver) == []


def test_deliveries_are_in_no_list_of_commands(driver: Driver) -> None:
    """Neither the summary nor the indexes nor the events know of them."""
    driver.add("a", sinks="outbox/*")
    driver.settle(driver.take(), "completed")
    events = driver.store.call("XLEN", driver.keys.events)
    deliver(driver, "completed")
    assert driver.reader.summary()["completed"] == 1
    assert driver.reader.summary(DELIVER_QUEUE)["completed"] == 1
    assert driver.store.call("ZRANGE", driver.keys.index_all, 0, -1) == [b"a"]
    assert driver.store.call("XLEN", driver.keys.events) == events
    assert list(driver.store.call("SMEMBERS", driver.keys.unsealed)) == [b"a"]


def test_a_delivery_is_tried_again(driver: Driver) -> None:
    """It has retries, due times and crash recovery of its own, in its own sets."""
    driver.add("a", sinks="outbox/*")
    driver.settle(driver.take(), "completed")
    assert deliver(driver, "retrying", delay_ms=0) == "a-1"
    assert driver.reader.summary(DELIVER_QUEUE)["retrying"] == 1
    driver.pass_ms(2)
    driver.scripts.promote()
    assert waiting(driver) == ["a-1"]
    driver.scripts.fetch("w8", DELIVER_QUEUE, room=1, delivery="d", lease_ms=60_000)
    driver.scripts.recover("w8")
    assert waiting(driver) == ["a-1"]
    assert deliver(driver, "completed") == "a-1"


def test_cancelled_dead_and_skipped_jobs_are_delivered(driver: Driver) -> None:
    """Whichever script ends a job makes its deliveries."""
    driver.add("a", sinks="notify:0/*")
    driver.add("b", sinks="notify:0/*", depends_on=["a"])
    driver.scripts.cancel("a", "test")
    assert waiting(driver) == ["a-1", "b-1"]
    driver.add("c", sinks="notify:0/failed")
    driver.scripts.bounds = Bounds(max_crashes=1)
    driver.fetch("w1")
    driver.scripts.recover("w1")
    assert waiting(driver) == ["a-1", "b-1", "c-1"]


def test_a_job_that_ends_again_is_delivered_again(driver: Driver) -> None:
    """Retried by hand, it has a new result."""
    driver.add("a", sinks="outbox/*")
    driver.settle(driver.take(), "failed")
    assert deliver(driver, "completed") == "a-1"
    driver.scripts.requeue("a", "again")
    driver.settle(driver.take(), "completed")
    assert waiting(driver) == ["a-2"]
    assert driver.store.call("HGET", driver.keys.job("a"), "deliveries") == b"2"
