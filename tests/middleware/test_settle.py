"""Ending an attempt: one commit, once, and only by the worker that holds the job."""

from __future__ import annotations

import hashlib

import pytest

from middleware.broker.transitions import Bounds, Settlement
from middleware.job.records import JobError
from middleware.job.states import State
from tests.middleware.committing_worker import delivery_of
from tests.middleware.driver import Driver

ERROR = b'{"type":"CommandFailed","message":"exit status 1"}'
OUTCOMES = ["completed", "failed", "cancelled", "retrying", "queued"]


def test_a_completion_is_one_commit(driver: Driver) -> None:
    """Result, receipt, state, progress, event and the end of the fence come together."""
    job_id = driver.add()
    delivery = driver.take()
    assert driver.settle(delivery, result=b'{"n":1}', reason="fine") == ("settled", "completed")
    record = driver.job(job_id)
    assert (record.status, record.result, record.progress, record.reason) == (
        "completed",
        {"n": 1},
        100.0,
        "fine",
    )
    assert record.completed_at is not None
    receipt = driver.reader.receipt(job_id)
    assert [line.status for line in receipt.transitions] == ["queued", "processing", "completed"]
    assert receipt.result_sha256 == hashlib.sha256(b'{"n":1}').hexdigest()
    assert (receipt.attempt, receipt.worker_id) == (1, "w1")
    assert driver.held_by("w1") == []
    entry = driver.store.call("XREVRANGE", driver.keys.events, "+", "-", "COUNT", 1)[0]
    assert entry[1] == [b"job", job_id.encode(), b"status", b"completed"]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_change_wakes_those_who_wait_for_the_job(driver: Driver, outcome: str) -> None:
    """Subscribers to the job are notified of its start and of the end of every attempt."""
    job_id = driver.add()
    link = driver.store.connect()
    link.send([("SUBSCRIBE", driver.keys.event_channel(job_id))])
    link.read(5.0)
    driver.settle(driver.take(), outcome, delay_ms=60_000)
    heard = [link.read(5.0)[2].decode().split(" ")[1] for _ in range(2)]
    link.close()
    assert heard == ["processing", outcome]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_settling_again_after_a_lost_reply_is_already_done(driver: Driver, outcome: str) -> None:
    """The same delivery settled twice changes nothing the second time, whatever it says then."""
    driver.add()
    delivery = driver.take()
    assert driver.settle(delivery, outcome, delay_ms=60_000) == ("settled", outcome)
    before = driver.chain(delivery.job_id)
    assert driver.settle(delivery, outcome, delay_ms=60_000) == ("already", outcome)
    assert driver.settle(delivery, "failed")[0] == "already"
    assert driver.chain(delivery.job_id) == before


def test_a_late_finisher_is_superseded(driver: Driver) -> None:
    """After its job was recovered, started and finished by another, a worker's word counts no more."""
    job_id = driver.add()
    late = driver.take("w1")
    driver.scripts.recover("w1")
    assert driver.settle(late, result=b'"late"') == ("superseded", "queued")
    second = driver.take("w2")
    assert driver.settle(late, result=b'"late"') == ("superseded", "processing")
    assert driver.settle(second, result=b'"second"') == ("settled", "completed")
    assert driver.settle(late, result=b'"late"') == ("superseded", "completed")
    assert driver.job(job_id).result == "second"
    assert driver.chain(job_id).count("completed") == 1


def test_an_older_delivery_of_the_same_worker_is_superseded(driver: Driver) -> None:
    """A worker that lost a job and got it again settles the new delivery, not the old one."""
    job_id = driver.add()
    old = driver.take("w1", token="d-1")
    driver.scripts.recover("w1")
    new = driver.take("w1", token="d-2")
    assert driver.settle(old, "failed") == ("superseded", "processing")
    assert driver.settle(new) == ("settled", "completed")
    assert driver.status(job_id) == "completed"


def test_another_worker_cannot_settle(driver: Driver) -> None:
    """The right delivery on the wrong processing set is refused, as is an unknown job."""
    driver.add()
    delivery = driver.take("w1", token="d-1")
    stranger = type(delivery)("w2", "d-1", delivery.job_id, 1)
    assert driver.settle(stranger) == ("superseded", "processing")
    assert driver.settle(type(delivery)("w1", "d-1", "nosuchjob", 1)) == ("superseded", "unknown")


def test_a_retry_is_committed_with_its_delay_and_error(driver: Driver) -> None:
    """The job waits for its next attempt and says why the last one failed."""
    job_id = driver.add()
    before_ms = driver.now_ms()
    driver.settle(driver.take(), "retrying", delay_ms=30_000, error=ERROR, reason="attempt 1 failed")
    record = driver.job(job_id)
    assert (record.status, record.reason) == ("retrying", "attempt 1 failed")
    assert record.error == JobError("CommandFailed", "exit status 1")
    assert int(str(driver.field(job_id, "due"))) >= before_ms + 30_000
    assert driver.fetch() == []


def test_three_attempts_make_one_chain(driver: Driver) -> None:
    """Two failures and a success are in one receipt chain; the success clears the error."""
    job_id = driver.add()
    for _ in range(2):
        driver.settle(driver.take(), "retrying", delay_ms=1, error=ERROR, reason="failed")
        driver.pass_ms(2)
    driver.settle(driver.take("w2"), result=b"3")
    record = driver.job(job_id)
    assert [(item.attempt, item.worker_id, item.status) for item in record.attempts] == [
        (1, "w1", "retrying"),
        (2, "w1", "retrying"),
        (3, "w2", "completed"),
    ]
    assert (record.error, record.result, record.attempt) == (None, 3, 3)
    assert driver.chain(job_id) == [
        "queued",
        *["processing", "retrying", "queued"] * 2,
        "processing",
        "completed",
    ]


def test_the_result_is_that_of_the_last_attempt(driver: Driver) -> None:
    """What an earlier attempt left behind does not pass for the result of a later one without any."""
    job_id = driver.add()
    driver.settle(driver.take(), "retrying", delay_ms=1, result=b'{"exit_status":1}', error=ERROR)
    driver.pass_ms(2)
    driver.settle(driver.take(), "completed")
    assert driver.job(job_id).result is None
    assert driver.reader.receipt(job_id).result_sha256 is None


def test_a_failure_is_a_dead_letter_with_its_cause(driver: Driver) -> None:
    """Error, partial result and reason are kept."""
    job_id = driver.add()
    driver.settle(
        driver.take(), "failed", error=ERROR, result=b'{"exit_status":1}', reason="in its only attempt"
    )
    record = driver.job(job_id)
    assert (record.status, record.result, record.reason) == (
        "failed",
        {"exit_status": 1},
        "in its only attempt",
    )
    assert record.error is not None
    assert driver.places(job_id) == [State.FAILED]


def test_a_handed_back_job_goes_to_the_front_and_is_not_counted(driver: Driver) -> None:
    """It keeps its place in the order of arrival, its attempt and its clean record."""
    job_id = driver.add()
    driver.add()
    delivery = driver.take()
    assert driver.settle(delivery, "queued", reason="its worker stops") == ("settled", "queued")
    record = driver.job(job_id)
    assert (record.attempt, record.crashes, record.started_at, record.reason) == (
        0,
        0,
        None,
        "its worker stops",
    )
    again = driver.take("w2")
    assert (again.job_id, again.attempt) == (job_id, 1)


@pytest.mark.parametrize("outcome", ["retrying", "queued"])
def test_a_cancelled_job_is_not_run_again(driver: Driver, outcome: str) -> None:
    """If it was cancelled while it ran, a retry or a hand-back becomes the cancellation."""
    job_id = driver.add()
    delivery = driver.take()
    driver.scripts.cancel(job_id, "cancelled by bob")
    assert driver.settle(delivery, outcome, delay_ms=1, reason="failed") == ("settled", "cancelled")
    assert driver.job(job_id).reason == "cancelled by bob"
    assert driver.places(job_id) == [State.CANCELLED]


def test_a_job_that_completes_all_the_same_is_completed(driver: Driver) -> None:
    """A cancellation that came too late does not undo a success."""
    job_id = driver.add()
    delivery = driver.take()
    driver.scripts.cancel(job_id, "cancelled by bob")
    assert driver.settle(delivery, result=b"1") == ("settled", "completed")
    assert driver.job(job_id).result == 1
    assert driver.field(job_id, "cancel") is None


def test_a_big_result_comes_back_whole(driver: Driver) -> None:
    """A megabyte goes through the script unharmed."""
    text = "é" * 500_000
    job_id = driver.run(result=f'"{text}"'.encode())
    assert driver.job(job_id).result == text


def settle_until_retired(driver: Driver, enough: int, tries: int = 600) -> list[str]:
    """End jobs until at most ``enough`` completed ones are left; about one call in sixteen cleans up."""
    ids = []
    for _ in range(tries):
        ids.append(driver.run(result=b"1"))
        if len(ids) > enough and driver.store.call("ZCARD", driver.keys.state(State.COMPLETED)) <= enough:
            return ids
    pytest.fail(f"{tries} settlements left more than {enough} completed jobs")


def traces(driver: Driver, job_id: str) -> list[str]:
    """List what is left of a job: keys of its own and places in shared ones."""
    left = [name for name in driver.key_names() if job_id in name]
    for name in driver.key_names():
        key = f"{driver.prefix}{name}"
        if driver.store.call("TYPE", key) != b"zset":
            continue
        members = driver.store.call("ZRANGE", key, 0, -1)
        left += [name for member in members if member.decode() in {job_id, job_id[::-1]}]
    return left


def test_old_jobs_are_retired_by_number_with_all_their_keys(driver: Driver) -> None:
    """Beyond the limit the oldest go, and nothing of them stays."""
    driver.scripts.bounds = Bounds(finished_max=50)
    ids = settle_until_retired(driver, 50)
    gone = [job_id for job_id in ids if driver.store.call("EXISTS", driver.keys.job(job_id)) == 0]
    kept = [job_id for job_id in ids if job_id not in gone]
    assert gone
    # Ten letters tell the millisecond; of jobs of the same one, any may go first.
    assert max(job_id[:10] for job_id in gone) <= min(job_id[:10] for job_id in kept), "the oldest go first"
    for job_id in (gone[0], gone[-1]):
        assert traces(driver, job_id) == []
    assert driver.job(ids[-1]).status == "completed"


def test_retiring_keeps_about_as_many_as_it_may(driver: Driver) -> None:
    """One job too many does not cost all the others, least of all the one that has just ended."""
    driver.scripts.bounds = Bounds(finished_max=5)
    for _ in range(120):
        job_id = driver.run()
        assert driver.store.call("EXISTS", driver.keys.job(job_id)) == 1, (
            "retired before anybody could read it"
        )


def test_old_jobs_are_retired_by_age(driver: Driver) -> None:
    """What ended longer ago than the retention goes, what is younger stays."""
    old = driver.run()
    key = driver.keys.state(State.COMPLETED)
    driver.store.call("ZADD", key, driver.now_ms() - 60_000, old)
    driver.scripts.bounds = Bounds(retention_ms=50_000)
    for _ in range(600):
        young = driver.run()
        if driver.store.call("ZSCORE", key, old) is None:
            break
    assert traces(driver, old) == []
    assert driver.status(young) == "completed"


def test_an_attempt_is_settled_once(driver: Driver) -> None:
    """The first middleware that decides prevails; a second one is a bug, and says so."""
    driver.add()
    (delivered,) = driver.fetch_raw().jobs
    message = delivery_of(delivered, "d1")
    assert message.settlement is None
    message.settle(Settlement(outcome="cancelled"))
    with pytest.raises(RuntimeError, match="is settled as cancelled and cannot become completed"):
        message.settle(Settlement(outcome="completed"))
    assert message.settlement == Settlement(outcome="cancelled")
