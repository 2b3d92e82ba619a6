"""``3ox track``: a running process, followed as a job by a background process."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.process.track import TrackedProcess, find_process
from ingress.dispatch import get_job, list_jobs, wait_for
from ops.errors import JobRefused
from ops.processes import pid_alive
from tests.actors.conftest import Configure, configure
from tests.actors.running import JobRun
from tests.projects.conftest import Site, project
from tests.support import eventually, threeox
from tests.tools import require_tool

__all__ = ["configure"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not a child of the bridge."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    if process.poll() is None:
        process.kill()
    process.wait(10.0)


@pytest.fixture
def bridge(site: Site) -> Site:
    """A bridge without a worker, with a project."""
    site.configure(project(site.home / "WORKDESK"))
    return site


def track(site: Site, pid: int, *options: str) -> str:
    """Track a process and return the job's id."""
    code, out, err = site.cli("track", str(pid), *options)
    assert (code, err) == (0, "")
    return out.strip().rpartition(":")[2]


def helper_of(job_id: str) -> int:
    """Return the process that tracks."""
    return int(str(get_job(job_id).worker_id).rsplit("-", 2)[1])


def test_a_process_is_followed_to_its_end(bridge: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """The job runs while the process does, and reports processor time, memory and the end."""
    job_id = track(bridge, sleeper.pid, "--project", "demo", "--name", "a long sleep")
    running = get_job(job_id)
    assert (running.status, running.job_type, running.project) == ("processing", "task.custom", "demo")
    assert running.payload == {"task": f"follow {sleeper.pid}: a long sleep"}
    listed = bridge.cli("jobs", "--status", "processing", "--json").json
    assert [job["job_id"] for job in listed["jobs"]] == [job_id]
    assert listed["summary"]["processing"] == 1
    eventually(lambda: "MB" in get_job(job_id).progress_message)
    helper = helper_of(job_id)
    sleeper.terminate()
    ended_s = time.monotonic()
    done = wait_for(job_id, timeout_s=15)
    assert time.monotonic() - ended_s < 5.0
    assert done.status == "completed"
    assert done.result["ended"] is True
    assert done.result["rss_max_bytes"] > 100_000
    assert "only its parent knows its exit status" in done.reason
    eventually(lambda: not pid_alive(helper))
    assert bridge.cli("status", "--json").json["workers"] == []
    counts = list_jobs().summary
    assert (counts["processing"], counts["completed"]) == (0, 1)
    keys = bridge.bridge.store.call("KEYS", f"{bridge.bridge.reader.keys.prefix}*solo*")
    assert keys == []


def test_without_names_the_command_line_tells(bridge: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """The project is ``track``; the receipt follows the job."""
    receipt = bridge.cli("track", str(sleeper.pid), "--json").json
    assert receipt["project"] == "track"
    assert [move["status"] for move in receipt["transitions"]] == ["queued", "processing"]
    assert get_job(receipt["job_id"]).payload["task"].endswith("sleep 300")
    sleeper.kill()
    assert wait_for(receipt["job_id"], timeout_s=5).status == "completed"


def test_what_is_not_there_is_refused(bridge: Site) -> None:
    """A process that does not exist, and a project that does not, are wrong use."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    code, out, err = bridge.cli("track", str(ended.pid))
    assert (code, out) == (2, "")
    assert f"Process {ended.pid} not found" in err
    code, _, err = bridge.cli("track", str(os.getpid()), "--project", "demi")
    assert code == 2
    assert "Did you mean 'demo'?" in err
    assert bridge.cli("track", "0").code == 2
    assert bridge.cli("jobs", "--json").json["jobs"] == []


def test_cancelling_leaves_the_process_alone(bridge: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """The job is cancelled, the follower ends, the process goes on; the answer tells that."""
    job_id = track(bridge, sleeper.pid)
    helper = helper_of(job_id)
    code, out, _ = bridge.cli("cancel", job_id)
    assert code == 0
    assert out == f"{job_id} cancelled: process {sleeper.pid} keeps running and is no longer followed\n"
    eventually(lambda: not pid_alive(helper))
    assert sleeper.poll() is None


def test_a_closed_terminal_ends_nothing(bridge: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """Closing the terminal of ``track`` does not end the follower."""
    out = _on_a_terminal_that_hangs_up(bridge, "track", str(sleeper.pid))
    job_id = out.strip().rpartition(":")[2]
    assert get_job(job_id).status == "processing"
    sleeper.kill()
    assert wait_for(job_id, timeout_s=5).status == "completed"


def test_a_killed_terminal_does_not_end_a_task(bridge: Site) -> None:
    """A task goes on when the terminal that submitted it is closed, also while it is followed there."""
    with bridge.workers():
        gate = bridge.home / "gate"
        task = f"echo begun; while [ ! -e {gate} ]; do sleep 0.02; done"
        line = _on_a_terminal_that_hangs_up(bridge, "run", "demo", task)
        first = line.strip().rpartition(":")[2]
        followed = _on_a_terminal_that_hangs_up(bridge, "run", "demo", task, "--wait", until="begun")
        second = followed.split()[0].rpartition(":")[2]
        assert {get_job(job_id).status for job_id in (first, second)} == {"processing"}
        gate.touch()
        for job_id in (first, second):
            assert wait_for(job_id, timeout_s=10).status == "completed"


def _on_a_terminal_that_hangs_up(site: Site, *arguments: str, until: str = "agent:") -> str:
    """Run a command in a session on a terminal of its own, which is closed when ``until`` has been drawn."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [require_tool("setsid"), "--ctty", "--wait", *threeox(*arguments)],
        env=site.environ,
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    drawn = ""
    while until not in drawn or not drawn.endswith("\n"):
        assert select.select([main], [], [], 20.0)[0], drawn
        with contextlib.suppress(OSError):
            drawn += os.read(main, 4096).decode()
    # Closing the last descriptor of the main side is what a terminal window does when it is killed.
    os.close(main)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10.0)
    assert process.poll() is not None, "it did not notice that its terminal is gone"
    return drawn


def test_a_worker_goes_on_when_the_follower_is_killed(bridge: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """The lease of the lost follower ends, and a worker of the same host follows to the end."""
    with bridge.workers() as (worker,):
        job_id = track(bridge, sleeper.pid)
        os.kill(helper_of(job_id), signal.SIGKILL)
        eventually(lambda: get_job(job_id).worker_id == worker.worker_id, 15.0)
        eventually(lambda: get_job(job_id).attempt == 2)
        sleeper.kill()
        done = wait_for(job_id, timeout_s=5)
    assert (done.status, done.attempt, done.crashes) == ("completed", 2, 1)
    assert done.result["ended"] is True


def test_a_worker_of_another_host_refuses() -> None:
    """It cannot see the process; the error names the host to use."""
    process = TrackedProcess(pid=4321, host="elsewhere", started=1)
    run = JobRun("task.custom", {"task": "x"}, project="track", metadata=process.metadata())
    with pytest.raises(JobRefused, match="4321 runs on elsewhere") as caught:
        run.run()
    assert "3ox track 4321" in caught.value.remedy


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """A process with this pid but another start time is not the tracked one, which has ended."""
    mine = find_process(os.getpid())
    assert mine is not None
    other = TrackedProcess(pid=mine.pid, host=socket.gethostname(), started=mine.started + 1)
    run = JobRun("task.custom", {"task": "x"}, project="track", metadata=other.metadata())
    assert run.run().ended
    assert run.reporter.reports == []


def test_only_an_operator_may_look_at_processes(configure: Configure, tmp_path: Path) -> None:
    """The metadata of a tracked process in any other job is ignored: it is an ordinary task."""
    configure(project(tmp_path))
    mine = find_process(os.getpid())
    assert mine is not None
    for trust in ("member", "untrusted"):
        fields = {"project": "demo", "trust": trust, "metadata": mine.metadata()}
        run = JobRun("task.custom", {"task": "echo an ordinary task"}, **fields)
        run.run()
        assert run.reporter.text("out") == "an ordinary task\n"


def test_the_policy_holds_for_it_too(site: Site, sleeper: subprocess.Popen[bytes]) -> None:
    """A process that the policy denies is not tracked."""
    site.configure('[[policy]]\nsource = "cli"\nproject = "track"\neffect = "deny"\n')
    code, out, err = site.cli("track", str(sleeper.pid))
    assert (code, out) == (2, "")
    assert "policy" in err
