"""What no worker can do for itself: hold its lease while starved, have its death noticed, be replaced."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingress.core import control
from ingress.dispatch import Bridge, dispatch, get_job, wait_for
from ops.processes import find_marked, pid_alive
from tests.dispatch.conftest import own, own_environ, own_loaded
from tests.support import eventually, frozen
from tests.workers import Worker, running_worker, worker_unit

__all__ = ["own", "own_environ", "own_loaded"]

ROGUE = "tests.faults.rogue"
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def rogues(bridge: Bridge, environ: dict[str, str], count: int) -> Iterator[list[Worker]]:
    """Run so many workers whose actors misbehave."""
    environ = {**environ, "PYTHONPATH": str(REPOSITORY)}
    with (
        running_worker(bridge, environ, name="rogue-1", module=ROGUE) as first,
        running_worker(bridge, environ, name="rogue-2", module=ROGUE) as second,
    ):
        yield [first, second][:count]


def logged(environ: dict[str, str], event: str) -> list[dict[str, object]]:
    """Return the lines of 3ox.log with this event."""
    lines = (Path(environ["BRIDGE_HOME"]) / "3ox.log").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


def test_a_killed_worker_is_noticed_at_once_and_its_children_are_gone(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL in the middle of a job: it starts again long before the lease ends, alone."""
    starts = tmp_path / "starts"
    script = (
        f"echo $$ >> {starts}; setsid sleep 60 & sleep 60 & while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    )
    environ = {**own_environ, "BRIDGE_LEASE_S": "30", "BRIDGE_HEARTBEAT_S": "5"}
    with (
        running_worker(own, environ, name="one") as one,
        running_worker(own, environ, name="two") as two,
    ):
        receipt = dispatch("shell.cmd", {"argv": ["sh", "-c", script]}, max_retries=0)
        eventually(lambda: starts.exists() and starts.read_text().split())
        first = starts.read_text().split()[0]
        holder = one if get_job(receipt.job_id).worker_id == one.worker_id else two
        killed_s = time.monotonic()
        holder.kill()
        eventually(lambda: len(starts.read_text().split()) == 2, 15.0)
        assert time.monotonic() - killed_s < 10.0, "a third of the lease"
        assert not pid_alive(int(first))
        assert not find_marked("BRIDGE_WORKER_ID", holder.worker_id)
        record = get_job(receipt.job_id)
        assert (record.attempt, record.crashes) == (2, 1)
        assert holder.worker_id in record.attempts[0].reason
        assert "its process" in record.attempts[0].reason
        (tmp_path / "go").touch()
        assert wait_for(receipt.job_id, timeout_s=10).status == "completed"


def test_a_process_that_was_just_forked_is_ended_with_its_worker(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """The worker is killed between fork and exec: the process has neither program nor mark of its own yet."""
    file = tmp_path / "pid"
    environ = {**own_environ, "PYTHONPATH": str(REPOSITORY)}
    dispatch("heartbeat", {"nonce": f"fork:{file}"}, max_retries=0)
    with running_worker(own, environ, name="forking", module=ROGUE) as worker:
        eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        worker.kill()
        eventually(lambda: not pid_alive(int(file.read_text())), 5.0)


def test_code_that_holds_the_interpreter_lock_keeps_its_lease(
    own: Bridge, own_environ: dict[str, str]
) -> None:
    """A C call of three leases' length, in which no Python of the worker runs: the job runs once.

    Its threads have slept beyond the end of their waits; a stop reaches them all the same.
    """
    with rogues(own, own_environ, 2) as workers:
        receipt = dispatch("heartbeat", {"nonce": "gil:6"}, timeout_seconds=60)
        record = wait_for(receipt.job_id, timeout_s=30)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    assert (record.status, record.attempt, record.crashes) == ("completed", 1, 0)


def test_a_job_that_kills_its_worker_is_a_dead_letter_after_three_crashes(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path
) -> None:
    """It takes three workers down and no more; the jobs of others are carried out meanwhile."""
    seen = tmp_path / "seen"
    environ = {**own_environ, "PYTHONPATH": str(REPOSITORY)}
    poison = dispatch("heartbeat", {"nonce": "die"})
    deaths = 0
    while get_job(poison.job_id).status != "failed":
        assert deaths < 3, "a fourth worker got the job"
        # It may be dead before it could be found in the store.
        with worker_unit(environ, name=f"victim-{deaths}", module=ROGUE) as victim:
            victim.wait(15)
        deaths += 1
        eventually(lambda: get_job(poison.job_id).crashes == deaths, 5.0)  # noqa: B023 (called at once)
    record = get_job(poison.job_id)
    assert deaths == 3
    assert record.error is not None
    assert "crashed its worker 3 times" in record.error.message
    assert "3ox retry" in record.error.remedy
    with running_worker(own, environ, name="survivor", module=ROGUE):
        healthy = dispatch("heartbeat", {"nonce": f"touch:{seen}"})
        assert wait_for(healthy.job_id, timeout_s=10).status == "completed"
    assert len(seen.read_text().splitlines()) == 1


def test_a_job_with_an_id_of_another_making_is_watched_like_any_other(
    own: Bridge, own_environ: dict[str, str]
) -> None:
    """Not handed back while it runs, though the watchdog looks several times; and its crash counts."""
    environ = {**own_environ, "BRIDGE_LEASE_S": "3", "BRIDGE_HEARTBEAT_S": "1"}
    with running_worker(own, environ, name="patient"):
        slow = dispatch("shell.cmd", {"argv": ["sleep", "4"]}, job_id="nightly")
        record = own.follower.wait(slow.job_id, timeout_s=15)
    assert (record.status, [attempt.status for attempt in record.attempts]) == ("completed", ["completed"])
    poison = dispatch("heartbeat", {"nonce": "die"}, job_id="a-job-id-of-another-form-2026-11-22")
    with worker_unit({**environ, "PYTHONPATH": str(REPOSITORY)}, name="victim", module=ROGUE) as victim:
        victim.wait(15)
    eventually(lambda: own.reader.job(poison.job_id).crashes == 1, 5.0)


def test_a_job_that_was_fetched_but_not_started_counts_no_crash(
    own: Bridge, own_environ: dict[str, str]
) -> None:
    """A worker that dies between fetch and start has done nothing to the job."""
    environ = {**own_environ, "BRIDGE_LEASE_S": "30", "BRIDGE_HEARTBEAT_S": "5"}
    with running_worker(own, environ, name="short-lived") as worker:
        with frozen(worker.pid):
            receipt = dispatch("heartbeat", {})
            # What this worker would have fetched, had it been killed a moment later.
            fetched = own.scripts.fetch(worker.worker_id, "jobs", room=1, delivery="late", lease_ms=30_000)
            assert [job.job_id for job in fetched.jobs] == [receipt.job_id]
            worker.kill()
        eventually(lambda: get_job(receipt.job_id).status == "queued", 5.0)
    record = get_job(receipt.job_id)
    assert (record.crashes, record.attempt) == (0, 0)
    assert "before it had started" in record.reason


def test_a_worker_that_lives_but_does_not_fetch_is_replaced(own: Bridge, own_environ: dict[str, str]) -> None:
    """Its fetching thread is dead, the rest lives on: the watchdog stops it, and says why."""
    environ = {**own_environ, "BRIDGE_STALL_S": "2", "PYTHONPATH": str(REPOSITORY)}
    with running_worker(own, environ, name="deaf", module=ROGUE) as worker:
        receipt = dispatch("heartbeat", {"nonce": "deaf"})
        wait_for(receipt.job_id, timeout_s=10)
        assert worker.wait(20) is not None
        assert not pid_alive(worker.pid)
    replaced = logged(environ, "worker.replaced")
    assert [row["worker_id"] for row in replaced] == [worker.worker_id]
    assert "has not polled for work" in str(replaced[0]["reason"])


def test_a_job_that_python_cannot_stop_ends_with_its_worker(own: Bridge, own_environ: dict[str, str]) -> None:
    """C code far beyond its time limit: the worker is killed, the job counts a crash."""
    environ = {**own_environ, "BRIDGE_MAX_CRASHES": "1", "PYTHONPATH": str(REPOSITORY)}
    with running_worker(own, environ, name="stubborn", module=ROGUE):
        receipt = dispatch("heartbeat", {"nonce": "gil:60"}, timeout_seconds=0.5)
        record = wait_for(receipt.job_id, timeout_s=30)
    assert (record.status, record.crashes) == ("failed", 1)
    assert "beyond its time limit" in str(logged(environ, "worker.replaced")[0]["reason"])


def test_a_new_watchdog_sees_to_what_died_while_there_was_none(
    own: Bridge, own_environ: dict[str, str]
) -> None:
    """Worker and watchdog killed together: the next watchdog takes the job back, before the lease ends."""
    environ = {**own_environ, "BRIDGE_LEASE_S": "60", "BRIDGE_HEARTBEAT_S": "5"}
    home = environ["BRIDGE_HOME"]
    with running_worker(own, environ, name="first") as worker:
        receipt = dispatch("shell.cmd", {"argv": ["sleep", "60"]})
        # Begun, not only fetched: otherwise the attempt would not count.
        eventually(lambda: find_marked("BRIDGE_JOB_ID", receipt.job_id))
        for pid in [pid for pid in find_marked("BRIDGE_HOME", home) if _is_watchdog(pid)]:
            os.kill(pid, signal.SIGKILL)
        worker.kill()
        worker.wait()
        assert get_job(receipt.job_id).status == "processing"
    with running_worker(own, environ, name="second"):
        eventually(lambda: get_job(receipt.job_id).attempt == 2, 10.0)
        control.cancel(own, receipt.job_id, "enough")
        assert wait_for(receipt.job_id, timeout_s=10).status == "cancelled"


def _is_watchdog(pid: int) -> bool:
    try:
        return b"middleware.broker.watchdog" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_clean_stop_leaves_no_watchdog_behind(own: Bridge, own_environ: dict[str, str]) -> None:
    """The watchdog that a worker started ends by itself, and so do its files."""
    home = own_environ["BRIDGE_HOME"]
    with running_worker(own, own_environ, name="only") as worker:
        eventually(lambda: any(_is_watchdog(pid) for pid in find_marked("BRIDGE_HOME", home)))
        worker.terminate()
        assert worker.wait() == 0
    eventually(lambda: not any(_is_watchdog(pid) for pid in find_marked("BRIDGE_HOME", home)), 15.0)
    assert not list((Path(home) / ".3ox" / "run").glob("vitals-*"))


@pytest.mark.parametrize("count", [3])
def test_a_rolling_restart_under_load_loses_and_repeats_nothing(
    own: Bridge, own_environ: dict[str, str], tmp_path: Path, count: int
) -> None:
    """Each worker is stopped and replaced while jobs keep coming: none lost, none run twice, no crash."""
    seen = tmp_path / "seen"
    environ = {**own_environ, "PYTHONPATH": str(REPOSITORY)}
    sent: list[str] = []

    def send() -> None:
        nonce = f"touch:{seen}"
        sent.extend(dispatch("heartbeat", {"nonce": nonce}).job_id for _ in range(150))

    with running_worker(own, environ, name="stays", module=ROGUE):
        for number in range(count):
            with running_worker(own, environ, name=f"rolls-{number}", module=ROGUE) as worker:
                send()
                worker.terminate()
                send()
                worker.wait()
        records = [wait_for(job_id, timeout_s=30) for job_id in sent]
    assert {record.status for record in records} == {"completed"}
    assert sum(record.crashes for record in records) == 0
    ran = [line.split()[0] for line in seen.read_text().splitlines()]
    assert sorted(ran) == sorted(sent)


def test_a_job_that_its_worker_does_not_know_of_is_handed_back(
    own: Bridge, own_environ: dict[str, str]
) -> None:
    """A fetch whose reply never arrived: the job does not stay "processing" while the worker lives."""
    with running_worker(own, own_environ, name="unaware") as worker:
        with frozen(worker.pid):
            receipt = dispatch("heartbeat", {})
            assert get_job(receipt.job_id).status == "queued"
            lost = own.scripts.fetch(worker.worker_id, "jobs", room=1, delivery="lost", lease_ms=30_000)
            assert [job.job_id for job in lost.jobs] == [receipt.job_id]
        record = wait_for(receipt.job_id, timeout_s=15)
    assert (record.status, record.attempt, record.crashes) == ("completed", 1, 0)
    assert any("did not know" in line.reason for line in own.reader.receipt(receipt.job_id).transitions)
