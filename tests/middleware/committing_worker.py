"""A worker in the process of the test, with jobs that it can end, and a store that can be frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from middleware.broker.actor_messages import message_of_job
from middleware.broker.admission import Admission
from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import Delivered, Settlement
from middleware.broker.type_directory import TypeDirectory
from middleware.job.reader import Reader
from middleware.job.schema import Job, decode_job
from ops.settings.load import Settings
from ops.store.client import Store
from tests.middleware.driver import Driver
from tests.support import RunningValkey

LEASE_MS = 60_000
PREFIX = "committing:"


@contextlib.contextmanager
def frozen(server: RunningValkey) -> Iterator[None]:
    """Stop the store's process during a block."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def make_broker(url: str) -> BridgeBroker:
    """Return a broker without middleware and with short timeouts."""
    scripts = Scripts(Store(url, timeout_s=0.3), PREFIX)
    reader = Reader(scripts.store, PREFIX)
    admission = Admission(scripts, Settings(), lambda job_id: reader.receipt(job_id, duplicate=True))
    return BridgeBroker(scripts, admission, lease_ms=LEASE_MS, middleware=[])


class CommittingWorker:
    """A worker that fetches and commits jobs on threads, without Dramatiq.

    Args:
        url: A store of its own.
        threads: Number of slots; all are reserved.

    Attributes:
        given: Number of slots returned.
    """

    def __init__(self, url: str, threads: int) -> None:
        self.driver = Driver(url, PREFIX)
        self.broker = make_broker(url)
        self.broker.slots.open(threads)
        assert self.broker.slots.reserve(1.0) == threads
        self.given = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def take(self, count: int) -> list[JobMessage]:
        """Fetch new jobs."""
        for _ in range(count):
            self.driver.add()
        token = self.broker.next_delivery("jobs")
        fetched = self.broker.scripts.fetch(
            self.broker.worker_id, "jobs", room=count, delivery=token, lease_ms=LEASE_MS
        )
        self.broker.delivery_arrived("jobs")
        assert len(fetched.jobs) == count
        return [delivery_of(job, token) for job in fetched.jobs]

    def release(self, count: int) -> None:
        """Count returned slots."""
        with self._lock:
            self.given += count

    def end(self, message: JobMessage, settlement: Settlement | None = None) -> threading.Thread:
        """End an attempt, on a thread as it would be in a worker."""
        done = Settlement(outcome="completed", result=b"1") if settlement is None else settlement
        thread = threading.Thread(target=self.broker.group_commit.add, args=(message, done, self.release))
        thread.start()
        self._threads.append(thread)
        return thread

    def join(self) -> None:
        """Wait until all those threads have ended."""
        for thread in self._threads:
            thread.join(20.0)
            assert not thread.is_alive(), "a commit hangs"
        self._threads.clear()

    def chain(self, message: JobMessage) -> list[str]:
        """Read the statuses of a job's receipt chain."""
        return self.driver.chain(message.job.job_id)


def delivery_of(delivered: Delivered, token: str, job: Job | None = None) -> JobMessage:
    """Return the message of a delivery, as a consumer makes it."""
    job = decode_job(delivered.spec) if job is None else job
    message = message_of_job(job, TypeDirectory(), queue="jobs", created_ms=delivered.created_ms)
    return JobMessage(job, delivered, token, message)
