"""Job state in a long-lived process: from memory, and never an old one."""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.job.cached import CachedReader, JobState
from middleware.job.ids import new_job_id
from middleware.job.keys import Keys
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
def reader(valkey: str, prefix: str) -> Iterator[CachedReader]:
    """A reader of that prefix."""
    made = CachedReader(Store(valkey), prefix)
    yield made
    made.close()


def test_every_transition_is_seen_at_once(driver: Driver, reader: CachedReader) -> None:
    """Whatever a script does to a job, the next read tells; reads in between ask nobody."""
    job_id = new_job_id()
    assert reader.status(job_id) is None
    driver.add(job_id)
    assert reader.status(job_id) == "queued"
    delivery = driver.take()
    assert reader.state(job_id) == JobState("processing", attempt=1, worker_id="w1")
    asked = reader.misses
    assert {reader.status(job_id) for _ in range(100)} == {"processing"}
    assert reader.misses == asked
    driver.scripts.cancel(job_id, "enough")
    found = reader.state(job_id)
    assert found is not None
    assert "enough" in found.reason
    driver.settle(delivery, "cancelled")
    assert reader.status(job_id) == "cancelled"
    driver.scripts.requeue(job_id, "again")
    assert reader.status(job_id) == "queued"


def test_never_older_than_what_another_process_has_written(
    valkey: str, prefix: str, reader: CachedReader, tmp_path: Path
) -> None:
    """A write that was answered before a read began is seen by it; the writer never pauses."""
    job_id = new_job_id()
    board = tmp_path / "board"
    board.write_bytes(bytes(16))
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
                found = reader.state(job_id)
                assert found is not None
                assert found.attempt >= answered, "older than a write that had been answered"
                values.add(found.attempt)
        finally:
            shared[8] = 1
            assert writer.wait(10.0) == 0
    assert len(values) > 100
    assert reader.hits > 0


def test_a_read_from_memory_is_fast(driver: Driver, reader: CachedReader) -> None:
    """The median of a read is under 50 us."""
    job_id = driver.add()
    spans_s = []
    for _ in range(2000):
        began_s = time.perf_counter()
        reader.status(job_id)
        spans_s.append(time.perf_counter() - began_s)
    assert sorted(spans_s)[1000] < 50e-6


def test_memory_is_bounded(valkey: str, prefix: str, driver: Driver) -> None:
    """No more states are remembered than allowed, and all are right."""
    reader = CachedReader(Store(valkey), prefix, jobs_max=10)
    ids = [driver.add() for _ in range(35)]
    assert {reader.status(job_id) for job_id in ids} == {"queued"}
    assert len(reader._known) <= 10
    reader.close()


def test_a_restart_of_the_store_is_survived(workspace: Workspace, prefix: str) -> None:
    """What was known from before a restart is not trusted."""
    server = RunningValkey(load_settings(workspace.home, environ={}))
    server.start()
    try:
        driver = Driver(server.url, prefix)
        reader = CachedReader(Store(server.url), prefix)
        job_id = driver.add()
        assert reader.status(job_id) == "queued"
        server.kill()
        server.start()
        driver.scripts.cancel(job_id, "test")
        assert reader.status(job_id) == "cancelled"
        reader.close()
    finally:
        server.stop()
