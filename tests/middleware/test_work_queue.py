"""The queue between consumers and threads, by itself and under a real Dramatiq worker in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.common import iter_queue

from middleware.broker.broker import BridgeBroker
from middleware.broker.work_queue import WorkQueue
from middleware.context import current_job
from middleware.current_job import CurrentJob
from middleware.lifecycle import Lifecycle
from middleware.receipts import Receipts
from tests.middleware.committing_worker import PREFIX, frozen, make_broker
from tests.middleware.driver import Driver
from tests.support import RunningValkey, eventually

THREADS = 4
DONE = ["queued", "processing", "completed"]


def test_nothing_is_lost_between_many_threads() -> None:
    """Each item comes out once, and the last one wakes threads that join."""
    items = WorkQueue()
    got: queue.SimpleQueue[int] = queue.SimpleQueue()

    def take() -> None:
        while (item := items.get(timeout=10.0)) >= 0:
            got.put(item)
            items.task_done()
        items.task_done()

    def put(first: int) -> None:
        for number in range(first, first + 500):
            items.put(number)

    takers = [threading.Thread(target=take) for _ in range(4)]
    putters = [threading.Thread(target=put, args=(first,)) for first in range(0, 2000, 500)]
    for thread in (*takers, *putters):
        thread.start()
    for thread in putters:
        thread.join(20.0)
    items.join()
    assert items.unfinished_tasks == 0
    assert sorted(got.get_nowait() for _ in range(2000)) == list(range(2000))
    for _ in takers:
        items.put(-1)
    for thread in takers:
        thread.join(20.0)


def test_it_is_what_a_worker_expects_of_a_queue() -> None:
    """In order, with a bound on the wait, and emptied as Dramatiq does when it stops."""
    items = WorkQueue()
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)
    for number in range(3):
        items.put(number)
    assert items.get(timeout=1.0) == 0
    assert list(iter_queue(items)) == [1, 2]  # type: ignore[no-untyped-call]
    with pytest.raises(queue.Empty):
        items.get_nowait()


class _Silent:
    """Takes what jobs report, and forgets it."""

    def progress(self, percent: float, message: str) -> None:
        """Not used."""

    def output(self, text: str, stream: str) -> None:
        """Not used."""

    def flush(self) -> None:
        """Nothing is held back."""


class Bench:
    """A worker with four threads whose jobs wait for a gate.

    Args:
        url: A store of its own.
    """

    def __init__(self, url: str) -> None:
        self.driver = Driver(url, PREFIX)
        self.gate = threading.Event()
        self.started: list[str] = []
        self.broker: BridgeBroker = make_broker(url)
        current = CurrentJob(lambda _: _Silent(), lambda: self.broker.worker_id)
        for item in (
            Lifecycle(current, shutdown_timeout_s=30.0, on_boot=lambda: None),
            Receipts(result_max_bytes=1000),
            current,
        ):
            self.broker.add_middleware(item)
        self.broker.declare_queue("jobs")

        @dramatiq.actor(actor_name="heartbeat", queue_name="jobs", broker=self.broker)
        def run(_: Any) -> None:
            self.started.append(current_job().job_id)
            assert self.gate.wait(30.0)

        self.worker = Worker(self.broker, worker_timeout=200, worker_threads=THREADS)
        self.stopped = False

    def stop(self) -> None:
        """Stop the worker as `dramatiq` does."""
        self.worker.stop()
        self.stopped = True

    def add(self, count: int) -> list[str]:
        """Enqueue jobs."""
        return [self.driver.add() for _ in range(count)]

    def all_done(self, ids: list[str]) -> bool:
        """Return whether all have completed, each in its one attempt."""
        return all(self.driver.chain(job_id) == DONE for job_id in ids)


@pytest.fixture
def bench(own_store: RunningValkey) -> Iterator[Bench]:
    """A worker that has been started."""
    made = Bench(own_store.url)
    made.worker.start()
    assert type(made.worker.work_queue).__name__ == WorkQueue.__name__
    yield made
    made.gate.set()
    if not made.stopped:
        made.stop()
    made.broker.close()
    made.driver.close()


def test_jobs_flow_through_all_threads(bench: Bench) -> None:
    """As many at once as there are threads; each once; all slots are free at the end."""
    ids = bench.add(10 * THREADS)
    eventually(lambda: len(bench.started) == THREADS)
    assert bench.worker.work_queue.unfinished_tasks == THREADS, "more was fetched than can run"
    bench.gate.set()
    eventually(lambda: bench.all_done(ids))
    assert sorted(bench.started) == sorted(ids)
    eventually(lambda: bench.broker.slots.reserve(0.0) == THREADS, 5.0)
    bench.broker.slots.give(THREADS)


def test_with_the_store_frozen_nothing_more_is_fetched(bench: Bench, own_store: RunningValkey) -> None:
    """What has ended waits for its commit; afterwards all of it stands, and the rest is run."""
    ids = bench.add(5 * THREADS)
    eventually(lambda: len(bench.started) == THREADS)
    with frozen(own_store):
        bench.gate.set()
        eventually(lambda: bench.worker.work_queue.unfinished_tasks == 1)
        eventually(lambda: bench.broker.outage.age_s > 1.0)  # longer than a fetch takes
        assert bench.worker.work_queue.unfinished_tasks == 1, "all but the one that commits are free"
        assert len(bench.started) == THREADS
    eventually(lambda: bench.all_done(ids), 20.0)
    assert len(bench.started) == len(ids)
    assert bench.broker.outage.age_s == 0


def test_a_worker_that_stops_leaves_no_commit_behind(bench: Bench, own_store: RunningValkey) -> None:
    """Stopped during an outage: it waits, and commits what has ended before it exits."""
    ids = bench.add(THREADS)
    eventually(lambda: len(bench.started) == THREADS)
    stopper = threading.Thread(target=bench.stop)
    with frozen(own_store):
        bench.gate.set()
        eventually(lambda: bench.broker.outage.age_s > 0)
        stopper.start()
        eventually(bench.broker.stopping.is_set)
        stopper.join(0.5)
        assert stopper.is_alive(), "it has ended with commits in hand"
    stopper.join(20.0)
    assert bench.stopped
    assert bench.all_done(ids)
    assert bench.driver.held_by(bench.broker.worker_id) == []


def test_closing_wakes_waiting_threads_and_keeps_the_items() -> None:
    """Also a thread that would wait for ever, as after a job that held the interpreter's lock for long."""
    waiting = WorkQueue()
    ended: list[str] = []

    def wait() -> None:
        with pytest.raises(queue.Empty):
            waiting.get(timeout=60.0)
        ended.append("ended")

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    waiting.close(len(threads))
    for thread in threads:
        thread.join(5.0)
    assert ended == ["ended"] * 4
    waiting.put("left")
    with pytest.raises(queue.Empty):
        waiting.get(timeout=60.0)
    assert waiting.get_nowait() == "left"
    with pytest.raises(queue.Empty):
        waiting.get_nowait()


def test_what_lies_in_the_queue_is_handed_back_at_a_stop(bench: Bench) -> None:
    """Fetched and not begun: no attempt is counted, and its slot is given back."""
    ids = bench.add(THREADS)
    eventually(lambda: len(bench.started) == THREADS)
    (behind,) = bench.add(1)
    # One slot more than there are threads: the job is fetched, and no thread is free for it.
    bench.broker.slots.give(1)
    eventually(lambda: bench.worker.work_queue.unfinished_tasks == THREADS + 1)
    stopper = threading.Thread(target=bench.stop)
    stopper.start()
    eventually(lambda: not any(thread.running for thread in bench.worker.workers))
    bench.gate.set()
    stopper.join(20.0)
    assert bench.stopped
    assert bench.all_done(ids)
    assert bench.driver.held_by(bench.broker.worker_id) == []
    record = bench.driver.job(behind)
    assert (record.status, record.attempt) == ("queued", 0)
    assert behind not in bench.started
