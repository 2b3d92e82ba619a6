"""An idle worker and a waiting client send nothing to the store; one thread keeps the order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ingress.dispatch import Bridge, cancel, dispatch, dispatch_many, wait_for
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from tests.monitor import quiet_for, watched_commands
from tests.support import eventually
from tests.workers import running_worker

WINDOW_S = 2.0
#: A blocking pop each second, a fetch every two, and the signs of life.
IDLE_PER_S = 5.0


def test_a_waiter_is_woken_and_does_not_ask(own: Bridge, valkey: str, prefix: str) -> None:
    """It sends nothing while nothing happens, and returns as soon as the job ends."""
    job_id = dispatch("heartbeat", {}).job_id
    ended: list[tuple[JobRecord, float]] = []

    def wait() -> None:
        record = wait_for(job_id, timeout_s=20.0)
        ended.append((record, time.monotonic()))

    waiter = threading.Thread(target=wait)
    waiter.start()
    channel = own.reader.keys.event_channel(job_id)
    eventually(lambda: own.store.call("PUBSUB", "NUMSUB", channel)[1] == 1)
    with watched_commands(valkey, prefix) as commands:
        quiet_for(0.3)
        asked = [line for line in commands.lines if "EXISTS" not in line]
        assert len(asked) <= 3, "the first look at the job may fall into the window, no more than that"
        began_s = time.monotonic()
        cancel(job_id)
        waiter.join(10.0)
    record, ended_s = ended[0]
    assert record.status == "cancelled"
    assert ended_s - began_s < 0.5


def test_an_idle_worker_leaves_the_store_alone(
    own: Bridge, own_environ: dict[str, str], valkey: str, prefix: str
) -> None:
    """It blocks until it is woken instead of polling."""
    environ = {
        name: value
        for name, value in own_environ.items()
        if name not in {"BRIDGE_LEASE_S", "BRIDGE_HEARTBEAT_S"}
    }
    with running_worker(own, environ, threads=8):
        assert wait_for(dispatch("heartbeat", {}).job_id, timeout_s=20.0).status == "completed"
        with watched_commands(valkey, prefix) as commands:
            quiet_for(WINDOW_S)
            assert len(commands.lines) <= IDLE_PER_S * WINDOW_S, commands.lines


def test_one_thread_works_by_priority_and_arrival(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """Queued jobs run in order when a worker starts."""
    order = tmp_path / "order"
    priorities = [5, 1, 10, 5, 3, 1, 8, 5]
    jobs = [
        make_job("shell.cmd", {"argv": ["sh", "-c", f"echo {priority}.{at} >>{order}"]}, priority=priority)
        for at, priority in enumerate(priorities)
    ]
    dispatch_many(jobs)
    with running_worker(own, own_environ, threads=1):
        for job in jobs:
            assert wait_for(job.job_id, timeout_s=20.0).status == "completed"
    wanted = [f"{priority}.{at}" for priority, at in sorted(zip(priorities, range(8), strict=True))]
    assert order.read_text().split() == wanted
