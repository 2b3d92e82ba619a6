"""What was read of jobs, from memory, and never older than a write that was answered before."""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from middleware.job.ids import new_job_id
from middleware.job.job_cache import JobCache
from middleware.job.keys import Keys
from middleware.job.reader import Reader
from middleware.job.records import JobRecord
from ops.errors import JobNotFound
from ops.settings.load import load_settings
from ops.store.client import Store
from ops.workspace import Workspace
from tests.middleware.driver import Driver
from tests.support import ROOT, RunningValkey, clean_environ, eventually

#: Counts up in a job's record; after each write that was answered, in memory shared with the test.
WRITER = """
import mmap, struct, sys
from ops.store.client import Store
url, key, board = sys.argv[1:]
store = Store(url)
with open(board, "r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
    number = 0
    while not shared[8]:
        number += 1
        store.call("HSET", key, "status", "processing", "attempt", number)
        struct.pack_into("<q", shared, 0, number)
"""


@pytest.fixture
def driver(valkey: str, prefix: str) -> Iterator[Driver]:
    """The scripts, under a prefix of this test's own."""
    made = Driver(valkey, prefix)
    yield made
    made.close()


@pytest.fixture
def cache(valkey: str, prefix: str) -> Iterator[JobCache[JobRecord]]:
    """A cache of that bridge's records."""
    made = JobCache(Store(valkey), prefix, Reader(Store(valkey), prefix).job)
    yield made
    made.close()


def attempt_reader(store: Store, prefix: str) -> Callable[[str], int]:
    """Return a function that reads the field ``attempt`` of a job."""
    return lambda job_id: int(store.call("HGET", Keys(prefix).job(job_id), "attempt") or 0)


def test_every_transition_is_seen_at_once(driver: Driver, cache: JobCache[JobRecord]) -> None:
    """After each change of a job the next answer has it; between changes no command is sent."""
    job_id = new_job_id()
    with pytest.raises(JobNotFound):
        cache.get(job_id)
    driver.add(job_id)
    assert cache.get(job_id).status == "queued"
    delivery = driver.take()
    found = cache.get(job_id)
    assert (found.status, found.attempt, found.worker_id) == ("processing", 1, "w1")
    misses = cache.misses
    assert {cache.get(job_id).status for _ in range(100)} == {"processing"}
    assert cache.misses == misses
    known = cache.known(job_id)
    assert known is not None
    assert known.status == "processing"
    driver.scripts.cancel(job_id, "enough")
    assert cache.known(job_id) is None
    assert "enough" in cache.get(job_id).reason
    driver.settle(delivery, "cancelled")
    assert cache.get(job_id).status == "cancelled"
    driver.scripts.requeue(job_id, "again")
    assert cache.get(job_id).status == "queued"


def test_a_change_of_a_delivery_counts(driver: Driver, cache: JobCache[JobRecord]) -> None:
    """A job's record shows its deliveries, which are jobs of their own: ID-1."""
    job_id = driver.add()
    cache.get(job_id)
    assert cache.known(job_id) is not None
    driver.store.call("HSET", driver.scripts.prefix + f"job:{job_id}-1", "status", "completed")
    assert cache.known(job_id) is None


def test_never_older_than_what_another_process_has_written(valkey: str, prefix: str, tmp_path: Path) -> None:
    """A write that was answered before a read began is seen by it; the writer never pauses."""
    job_id = new_job_id()
    board = tmp_path / "board"
    board.write_bytes(bytes(16))
    cache = JobCache(Store(valkey), prefix, attempt_reader(Store(valkey), prefix))
    with board.open("r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, valkey, Keys(prefix).job(job_id), str(board)],
            env=clean_environ(),
            cwd=ROOT,
        )
        try:
            eventually(lambda: struct.unpack_from("<q", shared)[0] > 0)
            values, ends_s = set(), time.monotonic() + 1.5
            while time.monotonic() < ends_s:
                (answered,) = struct.unpack_from("<q", shared)
                found = cache.get(job_id)
                assert found >= answered, "older than a write that had been answered"
                values.add(found)
        finally:
            shared[8] = 1
            assert writer.wait(10.0) == 0
    assert len(values) > 100
    assert cache.hits > 0
    cache.close()


def test_a_change_during_the_read_is_not_lost(valkey: str, prefix: str) -> None:
    """A value that was read before a change is not remembered, even if another thread took in the report."""
    store, job_id = Store(valkey), new_job_id()
    key = Keys(prefix).job(job_id)
    store.call("HSET", key, "attempt", 1)
    read, resume = threading.Event(), threading.Event()
    plain = attempt_reader(Store(valkey), prefix)

    def slow(wanted: str) -> int:
        value = plain(wanted)
        read.set()
        assert resume.wait(10.0)
        return value

    cache = JobCache(Store(valkey), prefix, slow)
    reading = threading.Thread(target=cache.get, args=(job_id,))
    reading.start()
    assert read.wait(10.0)
    store.call("HSET", key, "attempt", 2)
    assert cache.known(job_id) is None
    resume.set()
    reading.join(10.0)
    assert cache.known(job_id) is None
    assert cache.get(job_id) == 2
    cache.close()


def test_a_read_from_memory_is_fast(driver: Driver, cache: JobCache[JobRecord]) -> None:
    """The median of a read is under 50 us."""
    job_id = driver.add()
    spans_s = []
    for _ in range(2000):
        began_s = time.perf_counter()
        cache.get(job_id)
        spans_s.append(time.perf_counter() - began_s)
    assert sorted(spans_s)[1000] < 50e-6


def test_memory_is_bounded(valkey: str, prefix: str, driver: Driver) -> None:
    """No more values are remembered than allowed, none that is not to be kept, and all are right."""
    reader = Reader(Store(valkey), prefix)
    ids = [driver.add() for _ in range(35)]
    cache = JobCache(Store(valkey), prefix, reader.job, jobs_max=10)
    assert {cache.get(job_id).status for job_id in ids} == {"queued"}
    assert sum(cache.known(job_id) is not None for job_id in ids) <= 10
    cache.close()
    choosy = JobCache(Store(valkey), prefix, reader.job, keep=lambda record: record.status != "queued")
    assert choosy.get(ids[0]).status == "queued"
    assert choosy.known(ids[0]) is None
    choosy.close()


def test_without_tracking_each_answer_is_read(valkey: str, prefix: str, driver: Driver) -> None:
    """A server that refuses CLIENT TRACKING serves plain reads."""
    store = Store(valkey)
    user, password = f"user-{prefix.strip(':')}", "secret"
    store.call("ACL", "SETUSER", user, "on", f">{password}", "~*", "&*", "+@all", "-client|tracking")
    try:
        limited = Store(valkey.replace("unix://", f"unix://{user}:{password}@"))
        job_id = driver.add()
        cache = JobCache(limited, prefix, Reader(Store(valkey), prefix).job)
        assert [cache.get(job_id).status for _ in range(3)] == ["queued"] * 3
        assert (cache.hits, cache.misses, cache.known(job_id)) == (0, 3, None)
        cache.close()
    finally:
        store.call("ACL", "DELUSER", user)


def test_a_restart_of_the_store_is_survived(workspace: Workspace, prefix: str) -> None:
    """What was known from before a restart is not trusted."""
    server = RunningValkey(load_settings(workspace.home, environ={}))
    server.start()
    try:
        driver = Driver(server.url, prefix)
        cache = JobCache(Store(server.url), prefix, Reader(Store(server.url), prefix).job)
        job_id = driver.add()
        assert cache.get(job_id).status == "queued"
        server.kill()
        server.start()
        driver.scripts.cancel(job_id, "test")
        assert cache.get(job_id).status == "cancelled"
        cache.close()
    finally:
        server.stop()
