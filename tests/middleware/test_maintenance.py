"""Recovery, retention and expiry of approvals, as workers and scheduler do them."""

from __future__ import annotations

import threading

from middleware.broker.approvals import Approvals
from middleware.broker.maintenance import expire_approvals, recover_jobs, remove_old_jobs
from middleware.broker.transitions import Settlement
from middleware.job.keys import DELIVER_QUEUE, QUEUES
from tests.middleware.driver import Driver
from tests.support import eventually


def completed(driver: Driver) -> list[int]:
    """Count the completed jobs of each queue."""
    return [driver.reader.summary(queue)["completed"] for queue in QUEUES]


def complete_with_delivery(driver: Driver) -> None:
    """Complete a job, and the delivery of its result."""
    driver.add(sinks="outbox/*")
    driver.settle(driver.take())
    (delivery,) = driver.scripts.fetch("w9", DELIVER_QUEUE, room=1, delivery="d-x", lease_ms=60_000).jobs
    driver.scripts.settle("w9", delivery.job_id, "d-x", Settlement(outcome="completed"))


def remove(driver: Driver, *, retention_s: float, finished_max: int, stop: bool = False) -> int:
    """Run a round of retention."""
    stopping = threading.Event()
    if stop:
        stopping.set()
    return remove_old_jobs(
        driver.scripts, retention_s=retention_s, finished_max=finished_max, stopping=stopping
    )


def test_jobs_and_deliveries_that_are_too_old_are_removed(driver: Driver) -> None:
    """Both queues, and only what is older than the retention."""
    complete_with_delivery(driver)
    assert remove(driver, retention_s=60, finished_max=100) == 0
    assert completed(driver) == [1, 1]
    assert remove(driver, retention_s=0, finished_max=100) == 2
    assert completed(driver) == [0, 0]


def test_jobs_and_deliveries_that_are_too_many_are_removed(driver: Driver) -> None:
    """The newest ones are kept, in each queue; a stop ends the round before it begins."""
    for _ in range(3):
        complete_with_delivery(driver)
    assert remove(driver, retention_s=60, finished_max=1, stop=True) == 0
    assert remove(driver, retention_s=60, finished_max=1) == 4
    assert completed(driver) == [1, 1]


def test_jobs_of_a_worker_whose_lease_ended_are_recovered(driver: Driver) -> None:
    """They go back to the queue."""
    job_id = driver.add()
    driver.take(lease_ms=1)
    driver.look_now()
    eventually(lambda: recover_jobs(driver.scripts, lease_ms=40) == 1)
    assert driver.status(job_id) == "queued"


def test_jobs_whose_approval_is_overdue_are_cancelled(driver: Driver) -> None:
    """All of them, in several calls of the store."""
    for _ in range(60):
        driver.add(approval="rule 1: approve")
    approvals = Approvals(driver.scripts, ttl_s=0.001)
    driver.pass_ms(5)
    assert expire_approvals(approvals, stopping=threading.Event()) == 60
    assert driver.reader.summary()["cancelled"] == 60
