"""Jobs on which very many others depend: no single call settles them all, and none is forgotten."""

from __future__ import annotations

import pytest

from middleware.job.states import State
from tests.middleware.driver import Driver

#: Of ``prelude.lua``.
PORTION = 200
MANY = 450


def crowd(driver: Driver, first: str, count: int = MANY) -> list[str]:
    """Add jobs that depend on one."""
    requests = [driver.request(depends_on=[first]) for _ in range(count)]
    assert {reply.outcome for reply in driver.scripts.enqueue(requests)} == {"new"}
    return [request.job_id for request in requests]


def count(driver: Driver, state: State) -> int:
    """Count the jobs in a state."""
    return int(driver.store.call("ZCARD", driver.keys.state(state)))


def assert_nothing_is_left_of_it(driver: Driver) -> None:
    """No key that was made for this stays."""
    assert [name for name in driver.key_names() if name.startswith(("ended", "dependents"))] == []


def test_many_dependents_are_released_in_portions(driver: Driver) -> None:
    """Each call a part of them; a consumer is woken, and told to come again until all are released."""
    first = driver.add()
    behind = crowd(driver, first)
    delivery = driver.take()
    driver.settle(delivery)
    assert driver.status(first) == "completed"
    assert count(driver, State.QUEUED) == PORTION
    assert driver.bell() > 0
    assert driver.scripts.promote() == 0
    assert count(driver, State.QUEUED) == 2 * PORTION
    assert driver.scripts.promote() == -1
    assert count(driver, State.QUEUED) == MANY
    assert all(driver.chain(job_id) == ["held", "queued"] for job_id in behind)
    assert_nothing_is_left_of_it(driver)


def test_a_fetch_goes_on_with_it(driver: Driver) -> None:
    """Workers that are busy need no timer for it."""
    first = driver.add()
    crowd(driver, first)
    driver.settle(driver.take())
    fetched = driver.fetch_raw(room=1)
    assert fetched.next_due_ms == 0, "there is more to do at once"
    assert len(fetched.jobs) == 1
    assert driver.fetch_raw(room=1).next_due_ms == -1
    assert count(driver, State.HELD) == 0


def test_a_long_chain_falls_in_portions(driver: Driver) -> None:
    """What fails takes along what depends on it, and what depends on that, without stopping the store."""
    chain = [driver.add()]
    for _ in range(MANY):
        chain.append(driver.add(depends_on=[chain[-1]]))
    driver.scripts.cancel(chain[0], "cancelled by bob")
    gone = count(driver, State.CANCELLED)
    assert 1 < gone <= PORTION + 1
    assert driver.bell() > 0
    for _ in range(2 * MANY // PORTION + 2):
        driver.scripts.promote()
    assert count(driver, State.CANCELLED) == len(chain)
    assert all(driver.chain(job_id)[-1] == "cancelled" for job_id in chain)
    assert_nothing_is_left_of_it(driver)


def test_a_retried_job_no_longer_waits_for_what_had_ended(driver: Driver) -> None:
    """Cancelled and retried while its old wait is about to be settled: it waits for the other job only."""
    first, second = driver.add(), driver.add()
    crowd(driver, first)
    driver.settle(driver.take())
    waiting = [item.decode() for item in driver.store.call("ZRANGE", driver.keys.state(State.HELD), 0, -1)]
    both = driver.add(depends_on=[first, second])
    assert (driver.status(both), driver.field(both, "waits")) == ("held", "1")
    again = waiting[0]
    driver.scripts.cancel(again, "cancelled by bob")
    assert driver.scripts.requeue(again, "retried by bob") == ("queued", "queued")
    while driver.scripts.promote() == 0:
        pass
    assert driver.chain(again) == ["held", "cancelled", "queued"]
    assert driver.status(both) == "held"
    assert count(driver, State.HELD) == 1


def test_an_old_wait_does_not_release_a_retried_job(driver: Driver) -> None:
    """Of two that it depends on one has ended and is being settled: that end is not counted twice."""
    first, second = driver.add(), driver.add()
    requests = [driver.request(depends_on=[first, second]) for _ in range(MANY)]
    assert {reply.outcome for reply in driver.scripts.enqueue(requests)} == {"new"}
    driver.settle(driver.take())
    (waiting,) = [
        item.decode()
        for key in driver.key_names()
        if key.startswith("ended:")
        for item in driver.store.call("SRANDMEMBER", f"{driver.prefix}{key}", 1)
    ]
    driver.scripts.cancel(waiting, "cancelled by bob")
    assert driver.scripts.requeue(waiting, "retried by bob") == ("queued", "held")
    while driver.scripts.promote() == 0:
        pass
    assert driver.status(waiting) == "held"
    assert count(driver, State.HELD) == MANY
    driver.settle(driver.take())
    while driver.scripts.promote() == 0:
        pass
    assert count(driver, State.QUEUED) == MANY
    assert_nothing_is_left_of_it(driver)


@pytest.mark.parametrize("choice", ["skip", "fail", "run"])
def test_a_retried_job_waits_for_what_still_runs(driver: Driver, choice: str) -> None:
    """Cancelled while it waited, and retried: whatever it wants of a failure, the other has to end first."""
    first = driver.add()
    waiting = driver.add(depends_on=[first], on_dependency_failure=choice)
    delivery = driver.take()
    driver.scripts.cancel(waiting, "cancelled by bob")
    assert driver.scripts.requeue(waiting, "retried by bob") == ("queued", "held")
    driver.settle(delivery, "failed")
    assert driver.status(waiting) == {"skip": "cancelled", "fail": "failed", "run": "queued"}[choice]
    assert_nothing_is_left_of_it(driver)
