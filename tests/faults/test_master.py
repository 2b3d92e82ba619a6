"""Dramatiq's master is killed: its worker ends in good order, with what it has in hand."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ingress.dispatch import Bridge
from middleware.job.schema import make_job
from ops.processes import descendants
from ops.settings.load import LoadedSettings
from tests.support import eventually, threeox


def master_of(supervisor: int) -> int | None:
    """Return the first descendant that is Dramatiq's."""
    for pid in descendants(supervisor):
        if b"\0dramatiq\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the master in /proc")
def test_a_killed_master_of_3ox_worker_costs_no_attempt(
    environ: dict[str, str], loaded: LoadedSettings
) -> None:
    """The job's command is not swept away with what is left: it ends by itself, and its worker after it."""
    bridge, go_on = Bridge(loaded), loaded.workspace.home / "go-on"
    wait = f"until test -e {go_on}; do sleep 0.05; done"
    receipt = bridge.submit(make_job("shell.cmd", {"argv": ["sh", "-c", wait]}, max_retries=0))
    worker = subprocess.Popen(threeox("worker"), env=environ, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: bridge.reader.status_of(receipt.job_id) == "processing", 20)
        master = eventually(lambda: master_of(worker.pid))
        assert master is not None
        os.kill(master, signal.SIGKILL)
        eventually(lambda: "supervisor.stopping" in loaded.workspace.log_file.read_text())
        go_on.touch()
        ended = bridge.follower.wait(receipt.job_id, timeout_s=20.0)
        assert (ended.status, ended.attempt) == ("completed", 1), ended.reason
        assert worker.wait(30) == 128 + signal.SIGKILL
    finally:
        worker.terminate()
        worker.wait(30)
    assert "supervisor.swept" not in loaded.workspace.log_file.read_text()
