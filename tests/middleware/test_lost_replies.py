"""A connection that ends between command and reply: the store has acted, and nobody heard of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.broker.functions import load
from middleware.broker.scripts import Scripts, Settlement
from ops.store import Store
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
