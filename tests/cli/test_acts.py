"""``wait``, ``cancel`` and ``retry``."""

from __future__ import annotations

import time
from pathlib import Path

from ops.processes import pid_alive
from tests.cli.support import Cli
from tests.cli.test_jobs import queue


def test_wait_tells_how_jobs_ended(bridge: Cli) -> None:
    """``wait`` exits 0 if all are completed and 1 if one failed, with a line for each."""
    good, bad = queue(bridge, "demo", "good"), queue(bridge, "demo", "fail")
    assert bridge("wait", good) == (0, f"{good} completed\n", "")
    code, out, _ = bridge("wait", bad, good[-8:])
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines()] == [[bad, "failed"], [good, "completed"]]
    document = bridge("wait", good, bad, "--json").json
    assert [job["status"] for job in document["jobs"]] == ["completed", "failed"]


def test_wait_gives_up_in_time(quiet: Cli) -> None:
    """``--timeout`` bounds the wait for all jobs together; the exit code is 124."""
    ids = [queue(quiet, "demo", f"task {number}") for number in range(3)]
    began_s = time.monotonic()
    code, out, err = quiet("wait", *ids, "--timeout", "1.5")
    assert (code, out) == (124, "")
    assert (err.count(" has not finished in time."), err.count("no worker is running")) == (3, 1)
    assert time.monotonic() - began_s < 3 * 1.5
    assert quiet("wait", ids[0], "--timeout", "0").code == 124


def test_wait_for_an_unknown_job(quiet: Cli) -> None:
    """An unknown id exits with 4."""
    assert quiet("wait", "zzzzzzzz").code == 4


def test_cancel_of_a_waiting_job_is_done_at_once(quiet: Cli) -> None:
    """A job that has not started is cancelled when the command returns; the reason names the user."""
    job_id = queue(quiet, "demo", "x")
    assert quiet("cancel", job_id) == (0, f"{job_id} cancelled: it was queued\n", "")
    job = quiet.job(job_id)
    assert job["status"] == "cancelled"
    assert job["actor"] in job["reason"]
    assert quiet("cancel", job_id, "--json").json == {
        "jobs": [{"job_id": job_id, "outcome": "cancelled", "how": "it was queued"}]
    }


def test_cancel_waits_until_nothing_of_a_running_job_is_left(bridge: Cli, tmp_path: Path) -> None:
    """The word "cancelled" is printed when the whole process group is gone, soon."""
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; sleep 300 & echo $! >> {pids}; echo ready; wait"
    job_id = bridge("sh", "--detach", "--", "sh", "-c", script).out.strip()
    follower = bridge.start("logs", "-f", job_id)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "ready\n"
    began_s = time.monotonic()
    assert bridge("cancel", job_id) == (0, f"{job_id} cancelled: stopped after SIGTERM\n", "")
    assert time.monotonic() - began_s < 10.0
    assert [pid for pid in pids.read_text().split() if pid_alive(int(pid))] == []
    assert follower.wait(10) == 0
    follower.communicate()


def test_cancel_of_an_ended_job_changes_nothing(bridge: Cli) -> None:
    """A completed job stays completed; the command says so and exits with 2."""
    job_id = queue(bridge, "demo", "x")
    bridge("wait", job_id)
    code, out, err = bridge("cancel", job_id)
    assert (code, out) == (2, f"{job_id} completed\n")
    assert "has already finished" in err


def test_one_bad_id_does_not_keep_the_others(quiet: Cli) -> None:
    """An unknown id among several is reported, the others are cancelled, the exit code is 4."""
    job_id = queue(quiet, "demo", "x")
    code, out, err = quiet("cancel", "zzzzzzzz", job_id)
    assert (code, out) == (4, f"{job_id} cancelled: it was queued\n")
    assert "Job 'zzzzzzzz' not found" in err


def test_retry_runs_a_failed_job_again(bridge: Cli, tmp_path: Path) -> None:
    """A failed job runs again under its id and continues its receipt."""
    gate = tmp_path / "gate"
    job_id = bridge("sh", "--detach", "--", "test", "-e", str(gate)).out.strip()
    assert bridge("wait", job_id).code == 1
    gate.touch()
    code, out, _ = bridge("retry", job_id[-8:])
    assert code == 0
    assert out.startswith(job_id)
    assert bridge("wait", job_id).code == 0
    moves = [move["status"] for move in bridge("receipt", job_id, "--json").json["transitions"]]
    assert moves == ["queued", "processing", "failed", "queued", "processing", "completed"]
    assert [attempt["status"] for attempt in bridge.job(job_id)["attempts"]] == ["failed", "completed"]


def test_retry_of_a_job_that_did_not_fail_is_refused(quiet: Cli) -> None:
    """Only failed and cancelled jobs can be retried."""
    code, out, err = quiet("retry", queue(quiet, "demo", "x"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "only failed and cancelled jobs can be retried" in err


def test_retry_all_of_a_type(quiet: Cli) -> None:
    """``--all`` retries all jobs of the given type and state, and reports how many."""
    tasks = [queue(quiet, "demo", f"task {number}") for number in range(3)]
    shell = quiet("sh", "--detach", "--", "true").out.strip()
    quiet("cancel", *tasks, shell)
    code, out, err = quiet("retry", "--all", "--type", "task.custom", "--status", "cancelled")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == set(tasks)
    assert err == "3ox: 3 of 3 queued again.\n"
    assert quiet.job(shell)["status"] == "cancelled"
    assert quiet("retry", "--all", "--json").json == {"receipts": []}
