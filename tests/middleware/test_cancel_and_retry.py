"""What users and running jobs do to a job: cancel, retry, report, delete."""

from __future__ import annotations

import itertools

import pytest

from middleware.broker.transitions import Bounds
from middleware.job.states import State
from tests.middleware.driver import Delivery, Driver

_bundles = itertools.count(1)


def report(
    driver: Driver, delivery: Delivery, percent: str = "", output: list[tuple[str, str]] | None = None
) -> str:
    """Send a report of a running job; gives the script's answer."""
    pieces = [] if output is None else output
    command = driver.scripts.report_command(
        delivery.worker,
        delivery.job_id,
        delivery.token,
        percent=percent,
        message="half",
        output=pieces,
        bundle=next(_bundles),
    )
    answer = driver.scripts.run_many([command])[0]
    return str(answer.decode())


def test_cancelling_a_waiting_job_ends_it_at_once(driver: Driver) -> None:
    """It never starts, and says who cancelled it."""
    job_id = driver.add()
    assert driver.scripts.cancel(job_id, "cancelled by bob") == ("cancelled", "queued")
    record = driver.job(job_id)
    assert (record.status, record.reason, record.attempts) == ("cancelled", "cancelled by bob", [])
    assert driver.fetch() == []


@pytest.mark.parametrize("how", ["delayed", "dependent", "approval", "retrying"])
def test_cancelling_what_waits_elsewhere_ends_it_too(driver: Driver, how: str) -> None:
    """The schedule, the hold and the wait for a retry are left for good."""
    if how == "delayed":
        job_id = driver.add(delay_ms=1)
    elif how == "approval":
        job_id = driver.add(approval="ask first")
    else:
        job_id = driver.add()
        if how == "dependent":
            job_id = driver.add(depends_on=[job_id])
        else:
            driver.settle(driver.take(), "retrying", delay_ms=1)
    assert driver.scripts.cancel(job_id, "test")[0] == "cancelled"
    driver.pass_ms(2)
    for delivery in driver.fetch(room=9):
        assert delivery.job_id != job_id
        driver.settle(delivery)
    assert driver.places(job_id) == [State.CANCELLED]
    assert driver.chain(job_id)[-1] == "cancelled"


def test_cancelling_a_running_job_tells_its_worker(driver: Driver) -> None:
    """It stays processing until the worker has stopped it; the worker hears which delivery is meant."""
    job_id = driver.add()
    delivery = driver.take("w1")
    link = driver.store.connect()
    link.send([("SUBSCRIBE", driver.keys.control_channel("w1"))])
    link.read(5.0)
    assert driver.scripts.cancel(job_id, "cancelled by bob") == ("cancelling", "processing")
    assert link.read(5.0)[2].decode() == f"cancel {job_id} {delivery.token}"
    link.close()
    record = driver.job(job_id)
    assert (record.status, record.reason) == ("processing", "stopping: cancelled by bob")
    assert driver.settle(delivery, "cancelled") == ("settled", "cancelled")
    assert driver.job(job_id).reason == "cancelled by bob"


def test_cancelling_skips_dependents(driver: Driver) -> None:
    """What can no longer start is cancelled with it."""
    first = driver.add()
    second = driver.add(depends_on=[first])
    driver.scripts.cancel(first, "test")
    assert driver.status(second) == "cancelled"
    assert "was cancelled" in driver.job(second).reason


def test_a_dependent_that_is_cancelled_and_retried_still_waits(driver: Driver) -> None:
    """Its dependency lists it already; it is counted once all the same."""
    first = driver.add()
    second = driver.add(depends_on=[first, first])
    driver.scripts.cancel(second, "test")
    assert driver.scripts.requeue(second, "test") == ("queued", "held")
    delivery = driver.take(room=9)
    assert delivery.job_id == first
    driver.settle(delivery)
    assert driver.take().job_id == second


def test_unknown_jobs_are_unknown(driver: Driver) -> None:
    """Neither cancel nor retry invents a job."""
    assert driver.scripts.cancel("nosuchjob", "test") == ("unknown", "")
    assert driver.scripts.requeue("nosuchjob", "test") == ("unknown", "")
    assert driver.key_names() == []


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_retry_by_hand_starts_afresh_in_the_same_chain(driver: Driver, outcome: str) -> None:
    """Error, result, progress and flags are gone, the receipt goes on, attempts count from here."""
    job_id = driver.add()
    delivery = driver.take()
    report(driver, delivery, "40")
    driver.settle(delivery, outcome, result=b"1", error=b'{"type":"E","message":"m"}')
    driver.scripts.requeue(job_id, "retried by bob")
    record = driver.job(job_id)
    assert (record.status, record.error, record.result, record.progress) == ("queued", None, None, 0.0)
    assert (record.completed_at, record.reason) == (None, "retried by bob")
    assert driver.chain(job_id) == ["queued", "processing", outcome, "queued"]
    assert driver.bell() == 1
    delivered = driver.fetch_raw().jobs[0]
    assert (delivered.attempt, delivered.base_attempt) == (2, 1)


def test_a_retry_after_a_cancellation_is_not_cancelled_again(driver: Driver) -> None:
    """The flag of the old cancellation does not reach the new attempt."""
    job_id = driver.add()
    delivery = driver.take()
    driver.scripts.cancel(job_id, "cancelled by bob")
    driver.settle(delivery, "cancelled")
    driver.scripts.requeue(job_id, "retried by bob")
    assert driver.settle(driver.take(), "retrying", delay_ms=60_000) == ("settled", "retrying")


def test_a_retried_job_lines_up_behind(driver: Driver) -> None:
    """It takes a new place in the order of arrival."""
    job_id = driver.run("failed")
    other = driver.add()
    driver.scripts.requeue(job_id, "test")
    assert [item.job_id for item in driver.fetch(room=5)] == [other, job_id]


def test_reports_reach_record_events_and_output(driver: Driver) -> None:
    """Progress and output of a running job are there as soon as they are sent."""
    job_id = driver.add()
    delivery = driver.take()
    assert report(driver, delivery, "50", [("out", "one\n"), ("err", "two\n")]) == "ok"
    record = driver.job(job_id)
    assert (record.progress, record.progress_message) == (50.0, "half")
    assert [(chunk.stream, chunk.text) for chunk in driver.reader.output(job_id)] == [
        ("out", "one\n"),
        ("err", "two\n"),
    ]
    entry = driver.store.call("XREVRANGE", driver.keys.events, "+", "-", "COUNT", 1)[0][1]
    assert entry[4:] == [b"progress", b"50", b"message", b"half"]


def test_reports_of_a_superseded_worker_are_refused(driver: Driver) -> None:
    """What a late worker says does not mix with what the present one does."""
    job_id = driver.add()
    late = driver.take("w1")
    driver.scripts.recover("w1")
    assert report(driver, late, "90", [("out", "late")]) == "superseded"
    present = driver.take("w2")
    assert report(driver, late, "90", [("out", "late")]) == "superseded"
    assert report(driver, present, "10") == "ok"
    assert driver.job(job_id).progress == 10.0
    assert driver.reader.output(job_id) == []
    driver.settle(present)
    assert report(driver, present, "20", [("out", "after the end")]) == "superseded"


def test_two_workers_may_count_their_deliveries_alike(driver: Driver) -> None:
    """The output of a second attempt is not taken for that of the first, sent again."""
    job_id = driver.add()
    for number, worker in enumerate(("w1", "w2")):
        delivery = driver.take(worker, token="7")
        pieces = [("out", f"{number}\n")]
        command = driver.scripts.report_command(
            worker, job_id, "7", percent="", message="", output=pieces, bundle=2 - number
        )
        # The second time it is what a lost reply makes of it.
        driver.scripts.run_many([command, command])
        driver.settle(delivery, "retrying", delay_ms=1)
        driver.pass_ms(2)
    assert [chunk.text for chunk in driver.reader.output(job_id)] == ["0\n", "1\n"]


def test_output_is_bounded(driver: Driver) -> None:
    """Of a job that writes without end the last pieces are kept."""
    driver.scripts.bounds = Bounds(output_entries_max=100)
    driver.add()
    delivery = driver.take()
    for at in range(50):
        report(driver, delivery, output=[("out", f"{at}.{n}") for n in range(10)])
    kept = driver.reader.output(delivery.job_id)
    assert 100 <= len(kept) <= 200
    assert kept[-1].text == "49.9"


def test_purge_removes_every_trace(driver: Driver) -> None:
    """After all jobs have ended and been purged only the event stream and the counter are left."""
    first = driver.add(job_type="task.custom", project="demo", limits="gpu=1/1")
    driver.add(depends_on=[first])
    delivery = driver.take()
    report(driver, delivery, "10", [("out", "x")])
    driver.settle(delivery, result=b"1")
    driver.settle(driver.take(), "failed", error=b'{"type":"E","message":"m"}')
    driver.scripts.cancel(driver.add(delay_ms=60_000), "test")
    assert driver.fetch() == []
    driver.scripts.leave("w1")
    counts = [driver.scripts.purge(state, 100) for state in ("completed", "failed", "cancelled")]
    assert counts == [1, 1, 1]
    assert driver.key_names() == ["events", "seq", "unsealed:lost"]


def test_purge_takes_the_oldest_up_to_a_time_and_a_number(driver: Driver) -> None:
    """Bounded in both ways."""
    ids = [driver.run() for _ in range(4)]
    for at, job_id in enumerate(ids):
        driver.store.call("ZADD", driver.keys.state(State.COMPLETED), 1000 + at, job_id)
    assert driver.scripts.purge("completed", 2) == 2
    assert driver.scripts.purge("completed", 10, until_ms=1002) == 1
    assert driver.status(ids[3]) == "completed"
    assert driver.scripts.purge("completed", 10, until_ms=1002) == 0
