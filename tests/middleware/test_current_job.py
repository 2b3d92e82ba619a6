"""Who can be stopped in this process, when the same job is in it twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from middleware.broker.message import JobMessage
from middleware.context import JobInterrupted
from middleware.current_job import CurrentJob
from middleware.interrupts import JobCancelled, TimeLimitExceeded
from middleware.job.records import StreamName
from middleware.time_limit import TimeLimit
from ops.settings.load import Settings
from ops.settings.work import TypeOverrides
from tests.middleware.committing_worker import delivery_of, make_broker
from tests.middleware.driver import Driver
from tests.support import eventually


class _NoSink:
    """Takes nothing."""

    def progress(self, percent: float, message: str) -> None:
        """Nothing comes."""

    def output(self, text: str, stream: StreamName) -> None:
        """Nothing comes."""

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.fixture
def twice(driver: Driver) -> tuple[JobMessage, JobMessage]:
    """A job that was taken back from this worker while it ran, and was given to it again."""
    driver.add()
    first = driver.fetch_raw("w1", token="1").jobs[0]
    driver.scripts.recover("w1")
    again = driver.fetch_raw("w1", token="2").jobs[0]
    assert again.job_id == first.job_id
    old, new = (delivery_of(each, token) for each, token in ((first, "1"), (again, "2")))
    return old, new


@contextlib.contextmanager
def heard(message: JobMessage) -> Iterator[list[type[JobInterrupted]]]:
    """Collect the interrupts of a message, which then do not break into this thread."""
    interrupts: list[type[JobInterrupted]] = []
    assert message.context is not None
    with message.context.on_interrupt(interrupts.append):
        yield interrupts


def test_the_end_of_the_old_attempt_leaves_the_new_one_within_reach(
    twice: tuple[JobMessage, JobMessage], valkey: str
) -> None:
    """It can still be cancelled and runs out of time; the old one hears of neither."""
    old, new = twice
    broker = make_broker(valkey)
    current = CurrentJob(lambda _: _NoSink(), lambda: "w1")
    limit = TimeLimit(current, Settings(types={"heartbeat": TypeOverrides(timeout_s=0.2)}))
    limit.worker_started(broker, None)
    for message in twice:
        current.job_starting(broker, message)
        limit.job_starting(broker, message)
    with heard(old) as old_heard, heard(new) as new_heard:
        limit.job_ended(broker, old, None)
        current.job_ended(broker, old, None)
        assert not current.interrupt(old.key, JobCancelled)
        assert current.running() == [new]
        eventually(lambda: new_heard == [TimeLimitExceeded], 5.0)
        assert old_heard == []
    limit.worker_stopped(broker, None)
    broker.close()
