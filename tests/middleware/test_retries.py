"""What becomes of an attempt whose actor raises something odd."""

from __future__ import annotations

import msgspec
import pytest

from middleware.broker.transitions import Settlement
from middleware.job.schema import decode_job
from middleware.retries import Retries
from ops.errors import JobFailed
from ops.settings.load import Settings
from tests.middleware.committing_worker import delivery_of, make_broker
from tests.middleware.driver import Driver


class Foreign(Exception):
    """As libraries have them that wrap a call: its field is none of ours, and no JSON."""

    def __init__(self) -> None:
        super().__init__("it broke")
        self.result = object()


class Ours(JobFailed):
    """A failure with something that is to be kept beside it."""

    def __init__(self, result: object) -> None:
        super().__init__("it broke")
        self.result = result


@pytest.mark.parametrize(
    ("raised", "kept"),
    [(Foreign(), None), (Ours(object()), None), (Ours({"lines": 3}), {"lines": 3})],
    ids=["foreign", "no JSON", "ours"],
)
def test_what_an_error_carries_does_not_cost_the_retry(
    driver: Driver, valkey: str, raised: Exception, kept: object
) -> None:
    """The attempt is tried again; what can be kept of it is kept once it has failed for good."""
    driver.add()
    (delivered,) = driver.fetch_raw().jobs
    job = decode_job(delivered.spec)

    def settled(max_retries: int) -> Settlement:
        again = msgspec.structs.replace(job, max_retries=max_retries)
        message = delivery_of(delivered, "d1", again)
        Retries(Settings()).job_ended(make_broker(valkey), message, raised)
        assert message.settlement is not None
        return message.settlement

    assert settled(1).outcome == "retrying"
    last = settled(0)
    assert last.outcome == "failed"
    assert (msgspec.json.decode(last.result) if last.result else None) == kept


def test_an_attempt_that_lost_its_worker_uses_up_no_retry(driver: Driver, valkey: str) -> None:
    """It is counted apart: of a job with one retry, the attempt after a crash is followed by that retry."""
    driver.add()
    driver.fetch_raw("w1")
    driver.scripts.recover("w1")
    (delivered,) = driver.fetch_raw("w2").jobs
    assert delivered.attempt == 2
    broker = make_broker(valkey)
    broker.scripts.prefix = driver.scripts.prefix

    def reason(max_retries: int) -> str:
        job = msgspec.structs.replace(decode_job(delivered.spec), max_retries=max_retries)
        message = delivery_of(delivered, "d1", job)
        Retries(Settings()).job_ended(broker, message, JobFailed("it broke"))
        assert message.settlement is not None
        return f"{message.settlement.outcome}: {message.settlement.reason}"

    assert reason(1).startswith("retrying: attempt 2 of 3 failed: it broke; the next one is in ")
    assert reason(0) == "failed: failed in attempt 2 of 2: it broke"
