"""Killed workers and stores: no job is lost, committed twice or left "processing"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingress.dispatch import (
    Bridge,
    connect,
    dispatch,
    dispatch_many,
    get_job,
    get_receipt,
    list_jobs,
    wait_for,
)
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.support import RunningValkey, clean_environ, eventually, frozen
from tests.workers import known_workers, running_worker, sweep

GATE = 'echo start >>"$1.starts"; while [ ! -e "$1" ]; do sleep 0.02; done; echo end >>"$1.ends"'


def gated_job(gate: Path, **fields: Any) -> str:
    """Submit a job that runs until the gate is opened, and records its starts and ends."""
    return dispatch("shell.cmd", {"argv": ["sh", "-c", GATE, "sh", str(gate)]}, **fields).job_id


def starts(gate: Path) -> int:
    """Return how often that job was started."""
    path = Path(f"{gate}.starts")
    return len(path.read_text().split()) if path.exists() else 0


def test_the_job_of_a_killed_worker_is_run_by_another(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL while running: another worker runs the job, the crash is counted, the result committed once."""
    gate = tmp_path / "gate"
    job_id = gated_job(gate)
    with running_worker(own, own_environ, name="first") as first:
        eventually(lambda: starts(gate) == 1)
        with running_worker(own, own_environ, name="second") as second:
            killed_s = time.monotonic()
            first.kill()
            eventually(lambda: starts(gate) == 2, 20.0)
            assert time.monotonic() - killed_s < 2.0 + 6.0, "the lease, and a look a moment later"
            gate.touch()
            record = wait_for(job_id, timeout_s=20.0)
            assert (record.status, record.crashes, record.attempt) == ("completed", 1, 2)
            assert record.reason == "attempt 2 of 2 succeeded; 1 lost its worker"
            assert [item.worker_id for item in record.attempts] == [first.worker_id, second.worker_id]
            assert first.worker_id in record.attempts[0].reason
            chain = [line.status for line in get_receipt(job_id).transitions]
            assert chain == ["queued", "processing", "queued", "processing", "completed"]
            assert first.worker_id not in known_workers(own)


def test_a_worker_that_was_away_too_long_is_superseded(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """Paused until another worker has run its job, it changes nothing when it continues."""
    gate = tmp_path / "gate"
    job_id = gated_job(gate)
    # With its one thread busy the first does not listen for the bell, so the second hears it for sure.
    with running_worker(own, own_environ, name="first", threads=1) as first:
        eventually(lambda: starts(gate) == 1)
        with running_worker(own, own_environ, name="second") as second, frozen(first.pid):
            own.scripts.recover(first.worker_id, how="taken for dead by a test")
            eventually(lambda: starts(gate) == 2, 10.0)
            gate.touch()
            before = wait_for(job_id, timeout_s=20.0)
            assert before.worker_id == second.worker_id
        log = own.loaded.workspace.log_file
        eventually(lambda: "job.superseded" in log.read_text(), 15.0)
        after = get_job(job_id)
        assert (after.status, after.worker_id) == ("completed", second.worker_id)
        assert after.completed_at == before.completed_at
        assert [line.status for line in get_receipt(job_id).transitions].count("completed") == 1
        # It is of use again.
        job = dispatch("heartbeat", {}).job_id
        assert wait_for(job, timeout_s=20.0).worker_id == first.worker_id


def test_a_frozen_worker_delays_nobody_for_long(own: Bridge, own_environ: dict[str, str]) -> None:
    """A wake-up may go to a worker that was killed; another worker fetches the job soon anyway."""
    with (
        running_worker(own, own_environ, name="first") as first,
        running_worker(own, own_environ, name="second") as second,
        frozen(first.pid),
    ):
        jobs = [dispatch("heartbeat", {}).job_id for _ in range(3)]
        for job_id in jobs:
            assert wait_for(job_id, timeout_s=8.0).worker_id == second.worker_id


def test_a_stopped_worker_hands_back_what_it_cannot_finish(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """SIGTERM: a short job completes, a long one is returned without counting and runs elsewhere."""
    gate, short = tmp_path / "gate", tmp_path / "short"
    environ = {**own_environ, "BRIDGE_WORKER_SHUTDOWN_TIMEOUT_S": "0.5"}
    with running_worker(own, environ, name="first") as first:
        long_id, short_id = gated_job(gate), gated_job(short)
        eventually(lambda: starts(gate) == starts(short) == 1)
        first.terminate()
        short.touch()
        first.wait()
    assert get_job(short_id).status == "completed"
    record = get_job(long_id)
    assert (record.status, record.attempt, record.crashes) == ("queued", 0, 0)
    assert record.reason.startswith("handed back")
    assert known_workers(own) == []
    with running_worker(own, own_environ, name="second"):
        eventually(lambda: starts(gate) == 2)
        gate.touch()
        assert wait_for(long_id, timeout_s=20.0).status == "completed"


@pytest.fixture
def mortal(workspace: Workspace) -> Iterator[tuple[RunningValkey, dict[str, str]]]:
    """A store of the test's own, with its append-only file, and the environment of its bridge."""
    environ = clean_environ({"BRIDGE_HOME": str(workspace.home), "BRIDGE_KEY_PREFIX": "t:"})
    server = RunningValkey(load_settings(environ=environ))
    server.start()
    environ["BRIDGE_REDIS_URL"] = server.url
    yield server, environ
    sweep(environ)
    server.stop()


def test_a_store_that_is_killed_under_load_loses_nothing(
    mortal: tuple[RunningValkey, dict[str, str]],
) -> None:
    """SIGKILL and a restart with the append-only file: every job completes once, work resumes within 2 s."""
    server, environ = mortal
    bridge = connect(load_settings(environ=environ))
    with running_worker(bridge, environ) as worker:
        jobs = [
            make_job("shell.cmd", {"argv": ["true"]})
            if at % 4 == 0
            else make_job("heartbeat", {"nonce": f"{at}"})
            for at in range(400)
        ]
        dispatch_many(jobs)
        eventually(lambda: bridge.reader.summary()["completed"] >= 40)
        server.kill()
        server.start()
        back_s = time.monotonic()
        done = bridge.reader.summary()["completed"]
        assert done < len(jobs), "the store was killed too late"
        eventually(lambda: bridge.reader.summary()["completed"] > done)
        assert time.monotonic() - back_s < 8.0
        eventually(lambda: bridge.reader.summary()["completed"] == len(jobs), 20.0)
        summary = bridge.reader.summary()
        assert {state: count for state, count in summary.items() if count} == {"completed": len(jobs)}
        assert bridge.store.call("HLEN", bridge.reader.keys.processing(worker.worker_id)) == 0
    for job in jobs:
        chain = [line.status for line in get_receipt(job.job_id).transitions]
        assert chain == ["queued", "processing", "completed"]
    for record in list_jobs(job_type="heartbeat", limit=1000).jobs:
        assert record.result["nonce"] == record.payload["nonce"]


def test_a_result_waits_for_the_store(mortal: tuple[RunningValkey, dict[str, str]], tmp_path: Path) -> None:
    """A job that ends during an outage is committed afterwards, without a second run."""
    server, environ = mortal
    bridge = connect(load_settings(environ=environ))
    gate = tmp_path / "gate"
    with running_worker(bridge, environ):
        job_id = gated_job(gate)
        eventually(lambda: starts(gate) == 1)
        server.kill()
        gate.touch()
        eventually(lambda: Path(f"{gate}.ends").exists())
        server.start()
        record = wait_for(job_id, timeout_s=20.0)
    assert (record.status, record.attempt, starts(gate)) == ("completed", 1, 1)
    assert [line.status for line in get_receipt(job_id).transitions] == ["queued", "processing", "completed"]
