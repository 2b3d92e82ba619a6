"""Limited resources: never more in use than the capacity, no waiting job forgotten, every slot released."""

from __future__ import annotations

import pytest

from middleware.job.states import State
from tests.middleware.driver import Delivery, Driver

ONE = "gpu=1/1"


def test_what_finds_no_room_is_held_with_the_reason(driver: Driver) -> None:
    """It leaves the ready queue, so that it does not block jobs that need no such slot."""
    driver.add(limits=ONE)
    driver.take()
    waits, free = driver.add(limits=ONE), driver.add()
    assert [item.job_id for item in driver.fetch(room=5)] == [free]
    assert driver.places(waits) == [State.HELD]
    assert driver.job(waits).reason == "waiting for gpu: 1 of 1 in use"
    assert driver.running() == {"gpu": 1}


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "retrying", "queued"])
def test_every_end_of_an_attempt_gives_the_slot_back(driver: Driver, outcome: str) -> None:
    """The first that waits gets its turn, whatever became of the one before."""
    driver.add(limits=ONE)
    first = driver.take()
    waits = driver.add(limits=ONE, priority=1)
    driver.fetch()
    assert driver.settle(first, outcome, delay_ms=60_000)[0] == "settled"
    assert driver.places(waits) == [State.QUEUED]
    assert driver.job(waits).reason == "a slot of gpu is free"
    assert driver.running() == {}
    assert driver.take().job_id == waits


def test_recovery_gives_the_slots_back(driver: Driver) -> None:
    """A dead worker's slots do not die with it."""
    driver.add(limits=ONE)
    lost = driver.take("w1")
    driver.scripts.recover("w1")
    assert driver.running() == {}
    assert driver.take("w2").job_id == lost.job_id


def test_slots_are_given_in_order_of_priority_and_arrival(driver: Driver) -> None:
    """Among those that wait the ready queue's order holds."""
    driver.add(limits=ONE)
    current = driver.take()
    low, first, second = driver.add(limits=ONE, priority=9), driver.add(limits=ONE), driver.add(limits=ONE)
    driver.fetch(room=5)
    order = []
    for _ in range(3):
        driver.settle(current)
        current = driver.take()
        order.append(current.job_id)
    assert order == [first, second, low]


def test_amounts_are_counted(driver: Driver) -> None:
    """Three of four leave room for one, not for two."""
    driver.add(limits="gpu=3/4")
    big = driver.take()
    two, one = driver.add(limits="gpu=2/4"), driver.add(limits="gpu=1/4")
    got = {item.job_id for item in driver.fetch(room=5)}
    assert two not in got
    assert driver.running()["gpu"] <= 4
    driver.settle(big)
    got |= {item.job_id for item in driver.fetch(room=5)}
    assert got == {one, two}
    assert driver.running() == {"gpu": 3}


def test_freeing_several_slots_wakes_several(driver: Driver) -> None:
    """A big job's end makes room for as many small ones."""
    driver.add(limits="gpu=3/3")
    big = driver.take()
    small = [driver.add(limits="gpu=1/3") for _ in range(4)]
    driver.fetch(room=9)
    driver.settle(big)
    assert [item.job_id for item in driver.fetch(room=9)] == small[:3]
    assert driver.places(small[3]) == [State.HELD]


def test_a_job_takes_all_its_resources_or_none(driver: Driver) -> None:
    """Waiting for one resource it occupies no other."""
    driver.add(limits="a=1/1")
    first = driver.take()
    both = driver.add(limits="b=1/1,a=1/1")
    driver.fetch()
    assert driver.running() == {"a": 1}
    only_b = driver.add(limits="b=1/1")
    holder = driver.take()
    assert holder.job_id == only_b
    driver.settle(first)
    assert driver.fetch() == []
    driver.settle(holder)
    assert driver.take().job_id == both
    assert driver.running() == {"a": 1, "b": 1}


def test_a_turn_that_cannot_be_used_goes_to_the_next(driver: Driver) -> None:
    """A job woken for one resource and short of another does not keep the first one's slot idle."""
    driver.add(limits="a=1/1")
    has_a = driver.take()
    driver.add(limits="b=1/1")
    has_b = driver.take()
    both = driver.add(limits="a=1/1,b=1/1")
    only_a = driver.add(limits="a=1/1")
    assert driver.fetch(room=5) == []
    driver.settle(has_a)
    assert [item.job_id for item in driver.fetch(room=5)] == [only_a]
    driver.settle(has_b)
    assert driver.fetch(room=5) == []
    assert driver.places(both) == [State.HELD]


def test_cancelling_a_job_whose_turn_has_come_passes_the_turn_on(driver: Driver) -> None:
    """A job that was given its slot and is cancelled before it starts does not leave the others waiting."""
    driver.add(limits=ONE)
    first = driver.take()
    second, third = driver.add(limits=ONE), driver.add(limits=ONE)
    driver.fetch(room=5)
    driver.settle(first)
    assert driver.status(second) == "queued"
    driver.scripts.cancel(second, "test")
    assert driver.status(third) == "queued"
    assert driver.take().job_id == third


def test_a_cancelled_waiter_is_no_longer_in_line(driver: Driver) -> None:
    """The slot goes to the next one."""
    driver.add(limits=ONE)
    first = driver.take()
    second, third = driver.add(limits=ONE), driver.add(limits=ONE)
    driver.fetch(room=5)
    driver.scripts.cancel(second, "test")
    driver.settle(first)
    assert driver.take().job_id == third
    assert driver.places(second) == [State.CANCELLED]


def test_a_big_job_is_not_starved_by_small_ones(driver: Driver) -> None:
    """New small jobs do not for ever overtake one that needs the whole of a resource."""
    driver.add(limits="gpu=1/2")
    running: list[Delivery] = [driver.take()]
    big = driver.add(limits="gpu=2/2")
    for _ in range(10):
        driver.add(limits="gpu=1/2")
        running += driver.fetch(room=1)
        driver.settle(running.pop(0))
        running += driver.fetch(room=1)
        if driver.status(big) == "processing":
            return
        if not running:
            running += driver.fetch(room=1)
    pytest.fail("ten small jobs that came later went first")


def test_a_retry_by_hand_counts_its_resource_again(driver: Driver) -> None:
    """A failed job keeps its limits for its next life."""
    job_id = driver.add(limits=ONE)
    driver.settle(driver.take(), "failed")
    driver.scripts.requeue(job_id, "test")
    driver.take()
    assert driver.running() == {"gpu": 1}


def test_a_job_that_was_deleted_by_hand_uses_up_no_turn(driver: Driver) -> None:
    """It waited first; the slot goes to the next one."""
    driver.add(limits="gpu=1/1")
    running = driver.take()
    deleted, waiting = driver.add(limits="gpu=1/1"), driver.add(limits="gpu=1/1")
    assert driver.fetch(room=2) == []
    driver.store.call("DEL", driver.keys.job(deleted))
    driver.settle(running)
    assert driver.take().job_id == waiting


def test_being_overtaken_for_ever_does_not_grow_the_receipts_for_ever(driver: Driver) -> None:
    """A job of low priority is given its turn and loses it again, each time; its chain stays bounded."""
    driver.add(limits=ONE)
    current = driver.take()
    low = driver.add(limits=ONE, priority=10)
    driver.fetch()
    for _ in range(150):
        driver.add(limits=ONE, priority=1)
        driver.settle(current)
        (current,) = driver.fetch(room=1)
        assert driver.fetch(room=1) == []
        assert driver.places(low) == [State.HELD]
    driver.settle(current)
    last = driver.take()
    assert last.job_id == low
    driver.settle(last)
    chain = driver.chain(low)
    assert len(chain) <= 202
    assert chain[-1] == "completed"
