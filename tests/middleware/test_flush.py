"""Dramatiq's ``flush``: what waits in a queue is cancelled."""

from __future__ import annotations

from middleware.job.states import State
from tests.middleware.committing_worker import PREFIX, make_broker
from tests.middleware.driver import Driver
from tests.support import RunningValkey


def test_a_flush_cancels_what_waits_and_comes_to_an_end(own_store: RunningValkey) -> None:
    """Also where the record of a job that waits was deleted by hand."""
    driver, broker = Driver(own_store.url, PREFIX), make_broker(own_store.url)
    waiting = [driver.add() for _ in range(120)]
    driver.store.call("DEL", driver.keys.job(waiting[0]))
    broker.declare_queue("jobs")
    broker.flush_all()
    assert driver.store.call("ZCARD", driver.keys.state(State.QUEUED)) == 0
    assert {driver.status(job_id) for job_id in waiting[1:]} == {"cancelled"}
    broker.close()
    driver.close()
