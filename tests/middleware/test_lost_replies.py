"""Connections that end between command and reply: the store has acted, and the caller does not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.broker.functions import load
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import Settlement
from ops.store.client import Store
from tests.lossy_link import LossyLink
from tests.middleware.driver import Driver


@pytest.fixture
def link(valkey: str, tmp_path: Path) -> Iterator[LossyLink]:
    """A bad connection to the shared store."""
    with LossyLink(tmp_path / "lossy.sock", valkey.removeprefix("unix://")) as made:
        yield made


@pytest.fixture
def lossy(link: LossyLink, prefix: str) -> Iterator[Scripts]:
    """The scripts over that connection, which is open already; the store knows them already."""
    store = Store(link.url)
    load(store)
    yield Scripts(store, prefix)
    store.close()


def test_a_worker_knows_every_job_that_it_holds(driver: Driver, lossy: Scripts, link: LossyLink) -> None:
    """Jobs whose delivery got lost are given again, or they would stay processing for as long as it lives."""
    ids = [driver.add() for _ in range(4)]
    link.lose_next_reply()
    fetched = lossy.fetch("w1", "jobs", room=2, delivery="d-1", lease_ms=60_000)
    assert link.lost == 1
    assert sorted(job.job_id for job in fetched.jobs) == driver.held_by("w1")
    assert {job.job_id for job in fetched.jobs} == set(ids[:2])


def test_an_enqueue_whose_reply_is_lost_is_one_job(driver: Driver, lossy: Scripts, link: LossyLink) -> None:
    """It is tried again by itself, and the job is there once."""
    request = driver.request()
    link.lose_next_reply()
    reply = next(iter(lossy.enqueue([request])))
    assert link.lost == 1
    assert reply.job_id == request.job_id
    assert driver.chain(request.job_id) == ["queued"]
    assert len(driver.fetch(room=9)) == 1


def test_a_settlement_whose_reply_is_lost_is_committed_once(
    driver: Driver, lossy: Scripts, link: LossyLink
) -> None:
    """The worker learns that it had been committed already."""
    job_id = driver.add()
    delivery = driver.take("w1")
    link.lose_next_reply()
    answer = lossy.settle("w1", job_id, delivery.token, Settlement(outcome="completed", result=b"1"))
    assert (link.lost, answer) == (1, ("already", "completed"))
    assert driver.chain(job_id) == ["queued", "processing", "completed"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_retry_whose_reply_is_lost_is_told_what_it_did(
    driver: Driver, lossy: Scripts, link: LossyLink, waits: bool
) -> None:
    """It is not refused because of itself, and the job is queued once."""
    first = driver.add()
    job_id = driver.add(depends_on=[first]) if waits else first
    driver.scripts.cancel(job_id, "cancelled by bob")
    before = driver.chain(job_id)
    link.lose_next_reply()
    assert lossy.requeue(job_id, "retried by bob") == ("queued", "held" if waits else "queued")
    assert link.lost == 1
    assert driver.chain(job_id) == [*before, "held" if waits else "queued"]
    assert driver.scripts.requeue(job_id, "retried by eve")[0] == "refused", "another call is another matter"


def test_a_cancellation_whose_reply_is_lost_is_told_what_it_did(
    driver: Driver, lossy: Scripts, link: LossyLink
) -> None:
    """The job has ended because of this very call."""
    job_id = driver.add()
    link.lose_next_reply()
    assert lossy.cancel(job_id, "cancelled by bob") == ("cancelled", "queued")
    assert link.lost == 1
    assert driver.chain(job_id) == ["queued", "cancelled"]
    assert driver.scripts.cancel(job_id, "cancelled by eve") == ("finished", "cancelled")


def test_a_repeated_call_does_not_undo_what_came_after_it(driver: Driver) -> None:
    """Cancelled, retried by another user, and then the cancellation arrives a second time."""
    job_id = driver.add()
    cancel = driver.scripts.command("cancel", job_id, "cancelled by bob", "aa")
    retry = driver.scripts.command("requeue", job_id, "retried by eve", "bb")
    said = driver.scripts.run_many([cancel, retry, cancel, retry])
    assert said == [[b"cancelled", b"queued"], [b"queued", b"queued"]] * 2
    assert driver.status(job_id) == "queued"
    assert driver.chain(job_id) == ["queued", "cancelled", "queued"]


def test_what_was_said_is_kept_once_per_job(driver: Driver) -> None:
    """However often a job is cancelled and retried, its record does not grow; it goes with the job."""
    job_id = driver.add()
    for _ in range(5):
        assert driver.scripts.cancel(job_id, "test")[0] == "cancelled"
        assert driver.scripts.requeue(job_id, "test")[0] == "queued"
    names = driver.store.call("HKEYS", driver.keys.job(job_id))
    assert sorted(name for name in names if name.startswith(b"said:")) == [b"said:cancel", b"said:requeue"]
    driver.scripts.cancel(job_id, "test")
    driver.scripts.purge("cancelled", 10)
    assert f"job:{job_id}" not in driver.key_names()
