"""Stores that are paused for longer than leases and time limits last."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from ingress.dispatch import Bridge, dispatch, get_job, wait_for
from tests.dispatch.conftest import own, own_environ, own_loaded
from tests.faults.test_watchdog import logged
from tests.support import eventually, frozen
from tests.workers import running_worker

__all__ = ["own", "own_environ", "own_loaded"]


def paused_store(bridge: Bridge) -> AbstractContextManager[None]:
    """Stop the store for the time of a block."""
    info = bridge.store.call("INFO", "server").decode()
    pid = int(next(line.split(":")[1] for line in info.splitlines() if line.startswith("process_id")))
    return frozen(pid)


def test_a_pause_longer_than_the_lease_kills_no_worker(own: Bridge, own_environ: dict[str, str]) -> None:
    """All leases have ended when the store goes on, and yet every job runs once."""
    with (
        running_worker(own, own_environ, name="one"),
        running_worker(own, own_environ, name="two"),
        running_worker(own, own_environ, name="three"),
    ):
        receipts = [dispatch("shell.cmd", {"argv": ["sleep", "7"]}) for _ in range(6)]
        eventually(lambda: all(get_job(item.job_id).status == "processing" for item in receipts))
        with paused_store(own):
            time.sleep(4)  # twice the lease: the time itself is what is tested
        records = [wait_for(item.job_id, timeout_s=30) for item in receipts]
    assert {(record.status, record.attempt, record.crashes) for record in records} == {("completed", 1, 0)}


def test_a_job_whose_commit_waits_is_not_overdue(own: Bridge, own_environ: dict[str, str]) -> None:
    """Its actor ended in time, but the store did not answer for longer than its limit."""
    environ = {**own_environ, "BRIDGE_LEASE_S": "60", "BRIDGE_HEARTBEAT_S": "2"}
    with running_worker(own, environ, name="patient"):
        receipt = dispatch("shell.cmd", {"argv": ["sleep", "1"]}, timeout_seconds=1.5)
        eventually(lambda: get_job(receipt.job_id).status == "processing")
        with paused_store(own):
            time.sleep(9)  # the limit, the grace and the watchdog's patience, and some
        record = wait_for(receipt.job_id, timeout_s=10)
    assert (record.status, record.attempt, record.crashes) == ("completed", 1, 0)
    assert not logged(environ, "worker.replaced")
