"""A worker that brings its job along: one step, after which it is a job like any other."""

from __future__ import annotations

from middleware.broker.single_job_worker import Adopted, adopt
from middleware.broker.transitions import Bounds, EnqueueRequest
from middleware.job.states import State
from tests.middleware.driver import LEASE_MS, Delivery, Driver


def bring(driver: Driver, request: EnqueueRequest, worker: str = "w1", token: str = "own") -> Adopted:  # noqa: S107 (a delivery)
    """Adopt a job."""
    return adopt(driver.scripts, request, worker_id=worker, delivery=token, lease_ms=LEASE_MS)


def test_an_adopted_job_is_what_a_fetched_one_is(driver: Driver) -> None:
    """Record, receipt, place, fence and indexes are those of a job that was enqueued and fetched."""
    request = driver.request(job_type="task.custom", project="demo", sinks="outbox/*")
    assert bring(driver, request) == Adopted("new", "processing")
    other = driver.add(job_type="task.custom", project="demo", sinks="outbox/*")
    fetched = driver.take()
    adopted = request.job_id
    assert driver.places(adopted) == [State.PROCESSING]
    assert driver.chain(adopted) == ["queued", "processing"]
    assert driver.held_by("w1") == sorted([adopted, other])
    assert {job.job_id for job in driver.reader.page(project="demo", job_type="task.custom").jobs} == {
        adopted,
        other,
    }
    assert driver.reader.resolve(adopted[-12:]) == adopted
    assert driver.reader.receipt(adopted).input_sha256 == "0" * 64
    assert driver.reader.receipt(adopted).worker_id == "w1"
    fields = [
        sorted(driver.store.call("HKEYS", driver.keys.job(job_id))) for job_id in (adopted, fetched.job_id)
    ]
    assert fields[0] == fields[1]
    for job_id in (adopted, other):
        assert driver.store.call("SISMEMBER", driver.keys.unsealed, job_id) == 1
    assert driver.fetch("w2") == []


def test_an_adopted_job_ends_and_goes_without_a_trace(driver: Driver) -> None:
    """It is settled by its fence, its result is delivered, and a purge removes all of it."""
    request = driver.request(sinks="outbox/*")
    bring(driver, request)
    delivery = Delivery("w1", "own", request.job_id, 1)
    assert driver.settle(Delivery("w1", "other", request.job_id, 1))[0] == "superseded"
    assert driver.settle(delivery, result=b"1") == ("settled", "completed")
    assert driver.settle(delivery, result=b"1") == ("already", "completed")
    assert [item.sink for item in driver.job(request.job_id).deliveries] == ["outbox"]
    driver.scripts.fetch("w1", "deliver", room=1, delivery="d", lease_ms=LEASE_MS)
    driver.settle(Delivery("w1", "d", f"{request.job_id}-1", 1))
    driver.scripts.leave("w1")
    assert driver.scripts.purge("completed", 10) == 1
    assert driver.scripts.purge("completed", 10, queue="deliver") == 1
    assert driver.key_names() == ["events", "seq", "unsealed:lost"]


def test_the_same_again_is_taken_once(driver: Driver) -> None:
    """A lost reply is told ``already``; another worker, or a job that is there, ``duplicate``."""
    request = driver.request()
    assert bring(driver, request).outcome == "new"
    again = bring(driver, request)
    assert (again.outcome, again.is_ours) == ("already", True)
    assert driver.chain(request.job_id) == ["queued", "processing"]
    for worker, token in (("w2", "own"), ("w1", "other")):
        refused = bring(driver, request, worker, token)
        assert refused == Adopted("duplicate", "processing")
        assert not refused.is_ours
    assert driver.held_by("w2") == []


def test_a_worker_lost_at_once_leaves_an_ordinary_job(driver: Driver) -> None:
    """Killed right after the step, its job goes to the ordinary queue, and another worker has it."""
    request = driver.request()
    adopt(driver.scripts, request, worker_id="w1", delivery="own", lease_ms=-1)
    assert driver.recover_lapsed() == [("w1", request.job_id, "queued")]
    taken = driver.take("w2")
    assert (taken.job_id, taken.attempt) == (request.job_id, 2)
    assert bring(driver, request).outcome == "duplicate"


def test_a_full_queue_takes_none(valkey: str, prefix: str) -> None:
    """The limit of the queue is that of every way in; nothing is left of what was refused."""
    driver = Driver(valkey, prefix, Bounds(queue_max=2))
    try:
        driver.add()
        driver.add(delay_ms=60_000)
        before = driver.key_names()
        assert bring(driver, driver.request()) == Adopted("full", waiting=2)
        assert driver.key_names() == before
    finally:
        driver.close()
