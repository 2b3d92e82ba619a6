"""Cancel and time limit: nothing that a command started is left, however it hides; nor after its own end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from middleware.context import JobInterrupted
from middleware.interrupts import JobCancelled, TimeLimitExceeded
from ops.processes import pid_alive
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.support import clean_environ, eventually
from tests.tools import require_tool

pytestmark = pytest.mark.usefixtures("plain")

#: Ways in which a grandchild gets away: in the group, out of it, without the mark, with neither.
HIDING = {
    "background": "sleep 300 &",
    "session": "setsid sleep 300 &",
    "no mark": "env -i /bin/sleep 300 &",
    "neither": "env -i setsid /bin/sleep 300 &",
    "no pipes": "setsid sleep 300 >/dev/null 2>&1 </dev/null &",
    "deaf": "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &",
}


def grandchild(way: str, pid_file: Path) -> str:
    """Return a script line that starts a grandchild and leaves its pid in a file."""
    return f"{HIDING[way]} echo $! > {pid_file}.new; mv {pid_file}.new {pid_file};"


def started(pid_file: Path) -> int:
    """Wait for the grandchild and return its pid."""
    eventually(pid_file.exists)
    return int(pid_file.read_text())


def shell(script: str) -> JobRun:
    """Make a job that runs a script."""
    return JobRun("shell.cmd", {"argv": ["sh", "-c", script]})


@pytest.mark.parametrize("way", HIDING)
@pytest.mark.parametrize("kind", [JobCancelled, TimeLimitExceeded])
def test_interrupt_leaves_nothing(way: str, kind: type[JobInterrupted], tmp_path: Path) -> None:
    """The interrupt is reported only when the command and its grandchild are gone, soon."""
    require_tool("setsid")
    run = shell(grandchild(way, tmp_path / "pid") + "sleep 300").start()
    pid = started(tmp_path / "pid")
    eventually(lambda: len(run.processes()) >= 1)
    begun = time.monotonic()
    run.interrupt(kind)
    with pytest.raises(kind):
        run.finish()
    assert not pid_alive(pid)
    assert run.processes() == []
    assert time.monotonic() - begun < 10


def test_the_same_job_at_another_worker_is_let_alone() -> None:
    """A worker that was taken for dead ends its own copy of a job, not the one that runs elsewhere by now."""
    run = shell("sleep 300").start()
    elsewhere = subprocess.Popen(
        ["sleep", "300"],
        env=clean_environ({"BRIDGE_JOB_ID": run.job.job_id, "BRIDGE_WORKER_ID": "test-worker-2"}),
        start_new_session=True,
    )
    try:
        eventually(lambda: len(run.processes()) > 1)
        run.interrupt(JobCancelled)
        with pytest.raises(JobCancelled):
            run.finish()
        assert run.processes() == [elsewhere.pid]
        assert elsewhere.poll() is None
    finally:
        elsewhere.kill()
        elsewhere.wait()


def test_what_a_command_says_while_it_ends_is_kept(tmp_path: Path) -> None:
    """Output after SIGTERM is read on, also more of it than a pipe holds."""
    ready = tmp_path / "ready"
    script = (
        f"trap 'yes | head -c 300000; echo bye; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    )
    run = shell(script).start()
    eventually(ready.exists)
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert run.reporter.text("out").endswith("y\nbye\n")
    assert len(run.reporter.text("out")) == 300_004


def test_a_deaf_command_gets_its_grace_and_is_killed(configure: Configure, tmp_path: Path) -> None:
    """SIGKILL comes after kill_grace_s, not before and not much later."""
    configure(kill_grace_s=0.6)
    ready = tmp_path / "ready"
    run = shell(f"trap '' TERM; touch {ready}; while :; do sleep 1; done").start()
    eventually(ready.exists)
    begun = time.monotonic()
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert 0.6 <= time.monotonic() - begun < 10
    assert run.processes() == []


def test_a_job_that_is_cancelled_before_it_starts_runs_nothing(tmp_path: Path) -> None:
    """An interrupt that came first wins."""
    run = shell(f"touch {tmp_path / 'ran'}")
    assert not run.context.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.run()
    assert not (tmp_path / "ran").exists()


def test_cancelling_one_job_leaves_the_other_alone(tmp_path: Path) -> None:
    """Two jobs in one process do not touch each other's children."""
    gate = tmp_path / "gate"
    doomed = shell("sleep 300").start()
    other = shell(f"while ! test -e {gate}; do sleep 0.02; done; echo done").start()
    eventually(lambda: doomed.processes() and other.processes())
    doomed.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        doomed.finish()
    assert other.processes() != []
    gate.touch()
    assert other.finish().exit_status == 0


@pytest.mark.parametrize("way", ["background", "session", "no mark", "no pipes", "deaf"])
def test_what_a_command_leaves_behind_is_stopped_and_told(way: str, tmp_path: Path) -> None:
    """A command that ends before its background children does not hang and does not leave them."""
    begun = time.monotonic()
    run = shell(grandchild(way, tmp_path / "pid") + "echo done")
    result = run.run()
    assert result.exit_status == 0
    assert run.reporter.text("out") == "done\n"
    assert "left" in run.reporter.text("err")
    assert "running; stopped" in run.reporter.text("err")
    assert not pid_alive(started(tmp_path / "pid"))
    assert run.processes() == []
    assert time.monotonic() - begun < 5


def test_a_helper_that_ends_soon_is_waited_for() -> None:
    """Output of a background child that ends within the grace is kept without a note."""
    run = shell("(sleep 0.05; echo late) & echo done")
    run.run()
    assert run.reporter.text("out") == "done\nlate\n"
    assert run.reporter.text("err") == ""


def test_a_helper_that_floods_its_pipe_does_not_hold_the_job() -> None:
    """A left-over child that never stops writing is stopped all the same."""
    begun = time.monotonic()
    run = shell("yes & echo done; exit 0")
    assert run.run().exit_status == 0
    assert run.processes() == []
    assert time.monotonic() - begun < 10


def test_what_has_escaped_altogether_does_not_hold_the_job(tmp_path: Path) -> None:
    """An orphan without mark and session cannot be found; it holds the pipes but not the job."""
    begun = time.monotonic()
    run = shell(grandchild("neither", tmp_path / "pid") + "echo done")
    try:
        assert run.run().exit_status == 0
        assert run.reporter.text("out") == "done\n"
        assert time.monotonic() - begun < 10
    finally:
        os.kill(started(tmp_path / "pid"), signal.SIGKILL)
