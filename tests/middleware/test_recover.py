"""Taking back what a dead worker held: to the front, counted, and no more often than allowed."""

from __future__ import annotations

from middleware.broker.transitions import Bounds
from middleware.job.states import State
from tests.middleware.driver import Driver
from tests.support import eventually


def test_only_workers_whose_lease_has_ended_are_recovered(driver: Driver) -> None:
    """The living keep their jobs."""
    dead, alive = driver.add(), driver.add()
    driver.take("w1", lease_ms=-1)
    driver.take("w2")
    assert driver.recover_lapsed() == [("w1", dead, "queued")]
    assert driver.recover_lapsed() == []
    assert driver.held_by("w1") == []
    assert driver.held_by("w2") == [alive]
    assert driver.places(alive) == [State.PROCESSING]


def test_a_recovered_job_says_what_happened(driver: Driver) -> None:
    """From which worker, how it was lost, in which attempt; the crash is counted."""
    job_id = driver.add()
    driver.take("w1")
    driver.scripts.recover("w1", how="its process was killed")
    record = driver.job(job_id)
    recovered = "recovered from w1 (its process was killed) in attempt 1"
    assert record.reason == f"{recovered}; no worker carries heartbeat"
    assert (record.status, record.crashes, record.attempt) == ("queued", 1, 1)
    assert driver.take("w2").attempt == 2
    assert [(item.worker_id, item.status) for item in driver.job(job_id).attempts] == [
        ("w1", "queued"),
        ("w2", "processing"),
    ]


def test_recovered_jobs_go_to_the_front_of_their_priority_in_order(driver: Driver) -> None:
    """They keep their place in the order of arrival; a more urgent job still goes first."""
    first, second, third = driver.add(), driver.add(), driver.add()
    driver.fetch("w1", room=2)
    later, urgent = driver.add(), driver.add(priority=1)
    driver.scripts.recover("w1")
    order = [item.job_id for item in driver.fetch("w2", room=9)]
    assert order == [urgent, first, second, third, later]


def test_a_dead_worker_is_forgotten(driver: Driver) -> None:
    """Its lease and its sign of life go with its jobs."""
    driver.scripts.beat("w1", -1, {"pid": 1})
    driver.recover_lapsed()
    assert driver.key_names() == ["looked"]


def test_a_job_that_was_not_started_counts_no_crash(driver: Driver) -> None:
    """It was in the worker's hands, but its code never ran."""
    started, waiting = driver.add(), driver.add()
    driver.fetch("w1", room=2)
    driver.scripts.recover("w1", not_started=[waiting], how="killed")
    assert (driver.job(started).crashes, driver.job(waiting).crashes) == (1, 0)
    assert (driver.job(started).attempt, driver.job(waiting).attempt) == (1, 0)
    assert driver.job(waiting).reason.startswith("taken back from w1 (killed) before it had started")


def test_a_job_that_kills_its_workers_becomes_a_dead_letter(driver: Driver) -> None:
    """After the allowed number of crashes it is failed, with a cause and a remedy; others flow on."""
    driver.scripts.bounds = Bounds(max_crashes=3, crash_pause_ms=1)
    poison = driver.add(priority=1)
    harmless = driver.add()
    for at in range(3):
        driver.pass_ms(2)
        assert driver.take(f"w{at}").job_id == poison
        driver.scripts.recover(f"w{at}")
    record = driver.job(poison)
    assert (record.status, record.crashes) == ("failed", 3)
    assert record.reason.startswith("dead letter: it crashed its worker 3 times")
    assert record.error is not None
    assert record.error.type == "WorkerLost"
    assert f"3ox retry {poison}" in record.error.remedy
    assert driver.take("w9").job_id == harmless


def test_only_from_the_second_crash_on_a_job_waits_and_longer_each_time(driver: Driver) -> None:
    """The first re-run starts at once; then a host that kills every worker for want of memory gets time."""
    driver.scripts.bounds = Bounds(max_crashes=9)
    job_id = driver.add(limits="gpu=1/1")
    waits_s = []
    for crashes in range(1, 8):
        assert driver.take("w1").job_id == job_id
        wanted = "queued" if crashes == 1 else "retrying"
        assert driver.scripts.recover("w1") == [("w1", job_id, wanted)]
        assert (driver.job(job_id).crashes, driver.running()) == (crashes, {})
        if wanted == "retrying":
            assert driver.fetch("w2") == []
            due_ms = float(driver.store.call("ZSCORE", driver.keys.state(State.RETRYING), job_id))
            waits_s.append(round((due_ms - driver.now_ms()) / 1000))
            driver.store.call("ZADD", driver.keys.state(State.RETRYING), 1, job_id)
    assert waits_s == [1, 2, 4, 8, 8, 8]
    assert "7 workers died while running it, so it waits 8 s" in driver.job(job_id).reason


def test_a_job_that_waits_after_a_crash_wakes_a_consumer_and_can_be_cancelled(driver: Driver) -> None:
    """The consumer that wakes learns when it is due; if it is cancelled before that, it never runs."""
    job_id = driver.add()
    for worker in ("w1", "w2"):
        driver.take(worker)
        driver.scripts.recover(worker)
    record = driver.job(job_id)
    assert (record.status, record.attempt, record.crashes) == ("retrying", 2, 2)
    assert record.due_at is not None
    assert driver.bell() == 1
    assert 0 < driver.fetch_raw("w3").next_due_ms <= 1000
    assert driver.scripts.cancel(job_id, "cancelled by bob") == ("cancelled", "retrying")
    assert driver.places(job_id) == [State.CANCELLED]


def test_what_was_not_started_never_waits(driver: Driver) -> None:
    """However often the job was there when a worker died: this time it was not its doing."""
    job_id = driver.add()
    driver.scripts.bounds = Bounds(max_crashes=9, crash_pause_ms=1)
    for worker in ("w1", "w2"):
        driver.pass_ms(2)
        driver.take(worker)
        driver.scripts.recover(worker)
    driver.pass_ms(2)
    driver.take("w3")
    assert driver.scripts.recover("w3", not_started=[job_id]) == [("w3", job_id, "queued")]


def test_a_retry_by_hand_forgives_the_crashes(driver: Driver) -> None:
    """A corrected job starts with a clean record, and its attempts go on counting."""
    driver.scripts.bounds = Bounds(max_crashes=1)
    job_id = driver.add()
    driver.take("w1")
    driver.scripts.recover("w1")
    assert driver.status(job_id) == "failed"
    driver.scripts.requeue(job_id, "retried by bob")
    record = driver.job(job_id)
    assert (record.status, record.crashes, record.error, record.reason) == (
        "queued",
        0,
        None,
        "retried by bob; no worker carries heartbeat",
    )
    delivered = driver.fetch_raw("w2").jobs[0]
    assert (delivered.attempt, delivered.base_attempt) == (2, 1)


def test_a_job_that_was_being_cancelled_is_cancelled(driver: Driver) -> None:
    """It is not started again only because its worker died before it could stop it."""
    job_id = driver.add()
    driver.take("w1")
    driver.scripts.cancel(job_id, "cancelled by bob")
    assert driver.scripts.recover("w1") == [("w1", job_id, "cancelled")]
    assert driver.job(job_id).reason == "cancelled by bob"


def test_dependents_of_a_dead_letter_are_skipped(driver: Driver) -> None:
    """Its failure counts like any other."""
    driver.scripts.bounds = Bounds(max_crashes=1)
    first = driver.add()
    second = driver.add(depends_on=[first])
    driver.take("w1")
    driver.scripts.recover("w1")
    assert driver.status(second) == "cancelled"


def test_recovery_is_bounded_and_finishes_in_rounds(driver: Driver) -> None:
    """A whole host's workers are taken back in several short calls."""
    ids = [driver.add() for _ in range(40)]
    for at in range(40):
        driver.take(f"w{at}", lease_ms=-1)
    recovered = []
    while part := driver.recover_lapsed():
        recovered += [job_id for _, job_id, _ in part]
        assert len(part) <= 16
    assert sorted(recovered) == sorted(ids)


def test_recovery_rings_for_those_who_wait(driver: Driver) -> None:
    """Idle workers start what was taken back at once."""
    driver.add()
    driver.take("w1")
    assert driver.bell() == 0
    driver.scripts.recover("w1")
    assert driver.bell() == 1


def test_a_lease_is_renewed_by_fetch_and_beat(driver: Driver) -> None:
    """Either sign of life keeps a worker's jobs with it."""
    job_id = driver.add()
    driver.take("w1", lease_ms=-1)
    driver.fetch("w1")
    assert driver.recover_lapsed() == []
    driver.fetch("w1", lease_ms=-1)
    assert driver.scripts.beat("w1", 60_000, {"pid": 7, "host": "here"}) == 1
    assert driver.recover_lapsed() == []
    assert driver.held_by("w1") == [job_id]
    said = driver.store.call("HMGET", driver.keys.heartbeat("w1"), "pid", "host")
    assert said == [b"7", b"here"]
    assert 0 < driver.store.call("PTTL", driver.keys.heartbeat("w1")) <= 60_000 * 20


def test_leaving_is_for_empty_hands(driver: Driver) -> None:
    """A worker that still holds a job keeps its lease, which then runs out."""
    driver.add()
    delivery = driver.take("w1")
    assert driver.scripts.leave("w1") == 1
    assert driver.store.call("ZSCORE", driver.keys.workers, "w1") is not None
    driver.settle(delivery)
    driver.scripts.beat("w1", 60_000, {"pid": 7})
    assert driver.scripts.leave("w1") == 0
    assert driver.store.call("ZSCORE", driver.keys.workers, "w1") is None
    assert driver.store.call("EXISTS", driver.keys.heartbeat("w1")) == 0


def test_after_a_gap_no_worker_is_considered_dead(driver: Driver) -> None:
    """Leases that ended while the store was paused are renewed by who looks first; the dead fall later."""
    job_id = driver.add()
    driver.take("w1", lease_ms=-1)
    assert driver.scripts.recover(lease_ms=40) == []
    assert driver.held_by("w1") == [job_id]
    eventually(lambda: driver.scripts.recover(lease_ms=40) == [("w1", job_id, "queued")])


def test_a_lease_that_others_look_after_is_not_prolonged(driver: Driver) -> None:
    """Looking often enough finds the dead within one lease."""
    driver.add()
    driver.take("w1", lease_ms=60_000)
    for _ in range(3):
        assert driver.recover_lapsed() == []
    now_s, _ = driver.store.call("TIME")
    left_s = float(driver.store.call("ZSCORE", driver.keys.workers, "w1")) / 1000 - int(now_s)
    assert left_s <= 61
