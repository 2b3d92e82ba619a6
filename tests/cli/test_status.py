"""``3ox status`` with a store that is healthy, unavailable and paused."""

from __future__ import annotations

import time
from pathlib import Path

from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.cli.test_jobs import queue
from tests.support import RunningValkey, clean_environ, frozen


def test_status_shows_workers_and_queue(bridge: Cli, tmp_path: Path) -> None:
    """A processing job is listed with its worker, as text and as JSON."""
    gate = tmp_path / "gate"
    job_id = queue(bridge, "demo", f"wait for {gate}")
    bridge.wait_for_status(job_id, "processing")
    found = bridge("status", "--json").json
    assert found["store"]["healthy"] is True
    assert found["store"]["version"].startswith("valkey 9.")
    assert found["queue"]["processing"] >= 1
    assert found["queues"]["jobs"].keys() <= found["queue"].keys()
    assert found["queues"]["jobs"]["processing"] == found["queue"]["processing"]
    assert set(found["queues"]) == {"jobs", "deliver"}
    (worker,) = found["workers"]
    assert job_id in worker["processing"]
    assert worker["threads"] == 4
    assert worker["heartbeat_age_s"] < 10
    text = bridge("status").out
    assert worker["worker_id"] in text
    assert job_id[-8:] in text
    gate.touch()
    assert bridge("wait", job_id).code == 0


def test_status_says_that_nobody_works(quiet: Cli) -> None:
    """Without a worker the text tells how to start one."""
    queue(quiet, "demo", "x")
    code, out, _ = quiet("status")
    assert code == 0
    assert "queued: 1" in out
    queue_counts = quiet("status", "--json").json["queue"]
    assert queue_counts == {
        "queued": 1,
        "scheduled": 0,
        "held": 0,
        "processing": 0,
        "retrying": 0,
        "failed": 0,
        "ready": 1,
        "dead": 0,
    }
    assert "No worker is running. '3ox up'" in out


def test_status_without_a_store(storeless: Cli) -> None:
    """An absent store is one clear line and exit code 3; ``--json`` is still one document."""
    code, out, err = storeless("status")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "does not answer" in err
    code, out, err = storeless("status", "--json")
    assert (code, err.count("\n")) == (3, 1)
    found = storeless("status", "--json").json
    assert (found["store"]["healthy"], found["workers"], found["daemons"]) == (False, [], [])
    assert set(found) == {
        "store",
        "queue",
        "queues",
        "workers",
        "daemons",
        "drop_folder",
        "spool",
        "deliveries",
        "models",
        "ask",
    }


def test_status_of_a_paused_store_answers_soon(tmp_path: Path) -> None:
    """A store that hangs is reported after 1.2 s: less than 2 s in all, if the machine is not busy."""
    home = tmp_path / "home"
    loaded = load_settings(home, environ={})
    loaded.workspace.create()
    server = RunningValkey(loaded)
    server.start()
    try:
        with frozen(server.pid):
            cli = Cli(clean_environ({"BRIDGE_HOME": str(home)}))
            began_s = time.monotonic()
            code, out, err = cli("status")
            assert time.monotonic() - began_s < 1.2 + 3.0
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "did not answer within 1.2 s" in err
    finally:
        server.stop()
