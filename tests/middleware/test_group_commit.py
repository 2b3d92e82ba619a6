"""Group commit: no outcome of any thread is lost or committed twice, and every slot is returned."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from dramatiq.middleware import raise_thread_exception

from middleware.broker.transitions import Settlement
from middleware.broker.vitals import Vitals, read_vitals
from middleware.context import JobContext
from middleware.interrupts import JobCancelled
from ops.errors import StartFailed
from tests.middleware.committing_worker import CommittingWorker, frozen
from tests.support import RunningValkey, eventually

DONE = ["queued", "processing", "completed"]
THREADS = 4


@pytest.fixture
def worker(own_store: RunningValkey) -> Iterator[CommittingWorker]:
    """A worker with four threads."""
    made = CommittingWorker(own_store.url, THREADS)
    yield made
    made.broker.close()
    made.driver.close()


def test_commits_of_sixteen_threads_stand_once_each(own_store: RunningValkey, tmp_path: Path) -> None:
    """However they fall together: each job ends once, each slot comes back, no row of the vitals is left."""
    worker = CommittingWorker(own_store.url, 16)
    vitals = worker.broker.vitals = Vitals(tmp_path / "w", rows=32, start_time=0)
    jobs = [job for _ in range(20) for job in worker.take(16)]
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    done = Settlement(outcome="completed", result=b"1")

    def work() -> None:
        while not todo.empty():
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            vitals.started(job.job.job_id, job.delivery, 60.0)
            worker.broker.group_commit.add(job, done, worker.release)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert worker.given == len(jobs) == 320
    assert [worker.chain(job) for job in jobs] == [DONE] * len(jobs)
    assert worker.broker.tally == {"completed": len(jobs)}
    assert worker.driver.held_by(worker.broker.worker_id) == []
    assert read_vitals(vitals.path).jobs == []
    worker.broker.close()


def test_with_the_store_frozen_no_more_wait_than_there_are_threads(
    worker: CommittingWorker, own_store: RunningValkey, tmp_path: Path
) -> None:
    """As many commits return their slots early; later ones keep theirs, so that nothing is fetched."""
    vitals = worker.broker.vitals = Vitals(tmp_path / "w", rows=2 * THREADS, start_time=0)
    jobs = worker.take(2 * THREADS)
    for job in jobs:
        vitals.started(job.job.job_id, job.delivery, 60.0)
    with frozen(own_store):
        leader = worker.end(jobs[0])
        eventually(lambda: worker.broker.outage.age_s > 0)
        others = [worker.end(job) for job in jobs[1:]]
        for thread in others:
            thread.join(5.0)
            assert not thread.is_alive(), "waiting for the store, though another one does so for it"
        assert leader.is_alive()
        assert worker.given == THREADS - 1, "the leader's own job counts"
        assert len(read_vitals(vitals.path).jobs) == 2 * THREADS
    worker.join()
    assert worker.given == len(jobs)
    assert [worker.chain(job) for job in jobs] == [DONE] * len(jobs)
    assert read_vitals(vitals.path).jobs == []


def end_together(
    worker: CommittingWorker, server: RunningValkey, ends: dict[str, Settlement | None]
) -> dict[str, Any]:
    """End jobs behind one that waits for a frozen store, so that one round trip brings them all."""
    first, *jobs = worker.take(1 + len(ends))
    with frozen(server):
        worker.end(first)
        eventually(lambda: worker.broker.outage.age_s > 0)
        for job, settlement in zip(jobs, ends.values(), strict=True):
            worker.end(job, settlement).join(5.0)
    worker.join()
    assert worker.chain(first) == DONE
    assert worker.given == 1 + len(ends), "a slot was lost"
    assert worker.driver.held_by(worker.broker.worker_id) == []
    return dict(zip(ends, jobs, strict=True))


def assert_still_commits(worker: CommittingWorker) -> None:
    """Whatever was before, the next one leads and stands."""
    (job,) = worker.take(1)
    worker.end(job)
    worker.join()
    assert worker.chain(job) == DONE


def test_what_the_store_refuses_fails_that_job_alone(
    worker: CommittingWorker, own_store: RunningValkey
) -> None:
    """The others of the same round trip stand; this one fails, with what the store said."""
    jobs = end_together(
        worker, own_store, {"one": None, "odd": Settlement(outcome="held"), "two": None, "three": None}
    )
    odd = worker.driver.job(jobs.pop("odd").job.job_id)
    assert odd.status == "failed"
    assert "cannot end as held" in odd.reason
    assert [worker.chain(job) for job in jobs.values()] == [DONE] * 3
    assert_still_commits(worker)


def test_a_settlement_that_cannot_be_sent_fails_that_job_alone(
    worker: CommittingWorker, own_store: RunningValkey
) -> None:
    """A settlement that is a bug costs no other job its result."""
    broken = Settlement(outcome="completed", reason=cast("str", None))
    jobs = end_together(worker, own_store, {"one": None, "broken": broken, "two": None})
    record = worker.driver.job(jobs.pop("broken").job.job_id)
    assert record.status == "failed"
    assert record.error is not None
    assert [worker.chain(job) for job in jobs.values()] == [DONE] * 2
    assert_still_commits(worker)


def test_what_breaks_after_a_commit_touches_no_other(
    worker: CommittingWorker, own_store: RunningValkey
) -> None:
    """It is committed but cannot be logged; those behind it in the same reply are logged."""
    untold = Settlement(outcome="retrying", delay_ms=cast("int", "60000"))
    jobs = end_together(worker, own_store, {"untold": untold, "one": None, "two": None})
    assert worker.chain(jobs.pop("untold"))[-1] == "retrying"
    assert [worker.chain(job) for job in jobs.values()] == [DONE] * 2
    assert worker.broker.tally.total() == 4, "one of them was not told"
    assert_still_commits(worker)


def test_an_interrupt_that_comes_too_late_strands_nothing(
    worker: CommittingWorker, own_store: RunningValkey
) -> None:
    """Raised into the thread that commits for the others: it goes on, and gives every slot back."""
    first, *others = worker.take(THREADS + 1)
    with frozen(own_store):
        leader = worker.end(first)
        eventually(lambda: worker.broker.outage.age_s > 0)
        for job in others:
            worker.end(job).join(5.0)
        assert leader.ident is not None
        raise_thread_exception(leader.ident, JobCancelled)  # type: ignore[no-untyped-call]
        leader.join(1.0)  # longer than one try takes: it has been raised
        assert leader.is_alive()
    worker.join()
    assert [worker.chain(job) for job in (first, *others)] == [DONE] * (THREADS + 1)
    assert worker.given == THREADS + 1
    assert_still_commits(worker)


class _BrokenSink:
    """Takes no output."""

    def progress(self, percent: float, message: str) -> None:
        """Nothing comes."""

    def output(self, text: str, stream: str) -> None:
        """Nothing comes."""

    def flush(self) -> None:
        """The rest of the output cannot be sent, for an unforeseen reason."""
        raise RuntimeError("a bug")


def test_output_that_cannot_be_sent_costs_no_result(worker: CommittingWorker) -> None:
    """The result stands, and the slot comes back."""
    (job,) = worker.take(1)
    job.context = JobContext(job.job, cast("Any", _BrokenSink()), attempt=1, worker_id="w")
    worker.end(job)
    worker.join()
    assert worker.chain(job) == DONE
    assert worker.given == 1


def test_a_job_that_comes_back_at_once_has_a_row_of_its_own(tmp_path: Path) -> None:
    """Handed back, fetched again by this worker and started, before its old end has been noted."""
    vitals = Vitals(tmp_path / "w", rows=2, start_time=0)
    job_id = "0" * 20
    vitals.started(job_id, "1", 60.0)
    vitals.ended(job_id, "1")
    vitals.started(job_id, "2", 60.0)
    vitals.settled(job_id, "1")
    (row,) = read_vitals(vitals.path).jobs
    assert (row.job_id, row.allowed_ns) == (job_id, 60_000_000_000)
    vitals.settled(job_id, "2")
    assert read_vitals(vitals.path).jobs == []


@pytest.mark.parametrize("job_id", ["a", "0" * 20, "0" * 20 + "-12", "z" * 64 + "-12345"])
def test_the_watchdog_reads_whole_ids(tmp_path: Path, job_id: str) -> None:
    """Of a delivery, too, and of a job with an id of another form: otherwise it would hand them back."""
    vitals = Vitals(tmp_path / "w", rows=2, start_time=0)
    vitals.started(job_id, "1", 60.0)
    (row,) = read_vitals(vitals.path).jobs
    assert (row.job_id, row.allowed_ns) == (job_id, 60_000_000_000)
    vitals.ended(job_id, "1")
    (row,) = read_vitals(vitals.path).jobs
    assert (row.job_id, row.allowed_ns > 10**18) == (job_id, True)


def test_a_copied_file_is_refused(tmp_path: Path) -> None:
    """Its worker lives, but the copy shows nothing of it: it would be taken for one that stands still."""
    vitals = Vitals(tmp_path / "w", rows=2, start_time=0)
    copied = Path(shutil.copy(vitals.path, tmp_path / "copy"))
    with pytest.raises(StartFailed, match="is a copy"):
        read_vitals(copied)
    assert read_vitals(vitals.path.rename(tmp_path / "moved")).jobs == []
