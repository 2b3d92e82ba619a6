"""The ledger of a running bridge: sealed in time, with killed leaders, verified without our code."""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingress.core import control
from ingress.dispatch import Bridge, connect, dispatch, wait_for
from middleware.archive.ledger import day_files
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.clock.conftest import ClockProcess, running_clocks
from tests.support import ROOT, eventually, run_3ox, threeox
from tests.workers import running_worker, sweep

JOBS = 1_000


@pytest.fixture
def served(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment whose REST API has a port and a token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield {**environ, "BRIDGE_API_PORT": str(port), "BRIDGE_API_TOKEN": f"t-{secrets.token_hex(20)}"}
    sweep(environ)


def unsealed(bridge: Bridge) -> int:
    """Return the number of jobs that are to be sealed."""
    return int(bridge.store.call("SCARD", bridge.reader.keys.unsealed))


def get(environ: dict[str, str], path: str) -> Any:
    """Ask the REST API."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{environ['BRIDGE_API_PORT']}{path}",
        headers={"Authorization": f"Bearer {environ['BRIDGE_API_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (the same)
        return json.load(answer)


def test_every_transition_is_sealed_within_two_seconds(own: Bridge, served: dict[str, str]) -> None:
    """Its receipt is proven, by the command and with the public key alone."""
    rest = subprocess.Popen(
        threeox("rest"),
        env=served,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with running_clocks(served, own), running_worker(own, served):
            dispatch("heartbeat", {})
            eventually(lambda: unsealed(own) == 0, 10.0)
            job_id = dispatch("heartbeat", {"nonce": "später"}, actor="eve").job_id
            wait_for(job_id, timeout_s=20.0)
            ended_s = time.monotonic()
            eventually(lambda: unsealed(own) == 0, 10.0)
            assert time.monotonic() - ended_s < 2.0 + 3.0, "with room for a busy machine"
            proven = run_3ox("receipt", job_id, "--verify", "--json", environ=served)
            proof = json.loads(proven.stdout)["proof"]
            assert (proven.returncode, proof["ok"], proof["sealed"]) == (0, True, 3)
        ready = own.loaded.workspace.run_dir / "rest.ready"
        eventually(ready.exists, 20.0)
        home = own.loaded.workspace.home
        (home / "keys.json").write_text(json.dumps(get(served, "/v1/keys")))
        (home / "seals.json").write_text(json.dumps(get(served, f"/v1/jobs/{job_id}/seals")))
    finally:
        rest.terminate()
        rest.wait(15.0)
    for source in ("seals.json", str(day_files(own.loaded.workspace.ledger_dir)[-1])):
        checked = check_alone(home, source)
        assert checked.returncode == 0, checked.stderr
        assert re.findall(rf"{job_id} \d (\w+)", checked.stdout) == ["queued", "processing", "completed"]
    forged = (home / "seals.json").read_text().replace("completed", "cancelled")
    (home / "seals.json").write_text(forged)
    assert "InvalidSignature" in check_alone(home, "seals.json").stderr


def check_alone(home: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run the check of docs/reference/ledger.md without access to our code."""
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs/reference/ledger.md").read_text(), re.DOTALL)
    assert snippet is not None
    assert len(snippet[1].splitlines()) <= 20
    (home / "check.py").write_text(snippet[1])
    return subprocess.run(
        [sys.executable, "-I", "check.py", "keys.json", source],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_ledger_holds_after_killed_leaders(environ: dict[str, str], own: Bridge) -> None:
    """A thousand jobs, two leaders killed while they seal: one chain, each transition once."""
    clocks: list[ClockProcess] = []

    def start_two() -> None:
        while len(clocks) < 2:
            clocks.append(ClockProcess(environ, own))
            clocks[-1].wait_ready()

    def kill_the_leader() -> None:
        leader = eventually(lambda: next((clock for clock in clocks if clock.leads), None), 10.0)
        assert leader is not None
        leader.kill()
        clocks.remove(leader)

    try:
        start_two()
        for _ in range(2):
            start_two()
            jobs = [make_job("heartbeat", {}) for _ in range(JOBS // 2)]
            own.admission.submit(jobs)
            for job in jobs:
                control.cancel(own, job.job_id, "done with")
            sealed = lambda: len(day_files(own.loaded.workspace.ledger_dir)) > 0  # noqa: E731 (a condition)
            eventually(sealed, 10.0)
            kill_the_leader()
        eventually(lambda: unsealed(own) == 0, 20.0)
    finally:
        for clock in clocks:
            clock.kill()
    proven = run_3ox("verify", "--json", environ=environ)
    verdict = json.loads(proven.stdout)
    assert (proven.returncode, verdict["ok"]) == (0, True), (verdict["fault"], verdict["lines"])
    assert (verdict["lines"], verdict["jobs"]) == (2 * JOBS, JOBS)
    file = day_files(own.loaded.workspace.ledger_dir)[-1]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:700], *lines[701:]]))
    refused = run_3ox("verify", environ=environ)
    assert refused.returncode == 1
    assert refused.stdout.startswith(f"FAILED: {file.name} line 701: ")


def test_without_a_store_the_files_are_proven_all_the_same(environ: dict[str, str], own: Bridge) -> None:
    """And the output says that only the files were verified."""
    dispatch("heartbeat", {})
    with running_clocks(environ, own):
        eventually(lambda: unsealed(own) == 0, 10.0)
    away = {**environ, "BRIDGE_REDIS_URL": f"unix://{own.loaded.workspace.home}/none.sock"}
    proven = run_3ox("verify", environ=away)
    assert (proven.returncode, proven.stdout) == (0, "OK: 1 ledger entry verified (1 day).\n")
    assert "the ledger was not compared" in proven.stderr


def test_wrong_use_is_refused(environ: dict[str, str]) -> None:
    """An invalid day, and a day that the ledger does not have."""
    connect(load_settings(environ=environ))
    assert run_3ox("verify", "--day", "yesterday", environ=environ).returncode == 2
    missing = run_3ox("verify", "--day", "2001-01-01", environ=environ)
    assert missing.returncode == 1
    assert "The ledger has no file of 2001-01-01" in missing.stderr
    made = run_3ox("verify", "--rotate-key", "--json", environ=environ)
    assert json.loads(made.stdout)["signs"]
