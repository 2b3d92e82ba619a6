"""Real schedulers that are killed, stopped, cut off from their store, and get other schedules."""

from __future__ import annotations

import time
from datetime import datetime

import msgspec

from ingress.dispatch import Bridge, bridge_status, connect
from middleware.broker.transitions import Settlement
from middleware.job.keys import DELIVER_QUEUE, LLM_QUEUE
from middleware.job.metrics import POINTS_MAX, SPACING_S, Metrics
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.clock.conftest import running_clocks, runs_of, write_schedules
from tests.dispatch.test_faults import mortal
from tests.support import RunningValkey, eventually, frozen, run_3ox
from tests.workers import running_worker

__all__ = ["mortal"]

TICK = """
[[schedule]]
id = "tick"
every = 1
job = { job_type = "heartbeat" }
"""


def moments(bridge: Bridge, schedule: str = "tick") -> list[float]:
    """Return the times of a schedule's runs, in seconds."""
    return [datetime.fromisoformat(job.metadata["run_at"]).timestamp() for job in runs_of(bridge, schedule)]


def assert_every_second_once(seconds: list[float]) -> None:
    """Check that no run is missing between the first and the last, and none is doubled."""
    assert seconds == [seconds[0] + at for at in range(len(seconds))]


def test_the_leader_is_killed_and_no_run_is_lost_or_doubled(own: Bridge, environ: dict[str, str]) -> None:
    """The leader gets SIGKILL: the other takes over within 5 s and submits the due runs."""
    write_schedules(environ, TICK)
    with running_clocks(environ, own, count=2) as clocks:
        eventually(lambda: len(runs_of(own, "tick")) >= 2)
        leader = next(clock for clock in clocks if clock.leads)
        other = next(clock for clock in clocks if clock is not leader)
        leader.kill()
        killed_s = time.monotonic()
        eventually(lambda: other.leads, 10.0)
        assert time.monotonic() - killed_s < 5.0
        known = len(runs_of(own, "tick"))
        eventually(lambda: len(runs_of(own, "tick")) >= known + 2)
        daemons = {daemon["pid"]: daemon for daemon in bridge_status()["daemons"]}
        assert daemons[other.process.pid]["role"] == "leads"
        leading = [pid for pid, daemon in daemons.items() if daemon.get("role") == "leads"]
        assert leading == [other.process.pid], "the last words of the killed one stay for a while"
    assert "clock.leader_died" in own.loaded.workspace.log_file.read_text(), "no need to wait for the lease"
    assert_every_second_once(moments(own))


def test_a_leader_that_froze_finds_another_and_changes_nothing(own: Bridge, environ: dict[str, str]) -> None:
    """SIGSTOP until its lease has ended: afterwards it follows, and no run is doubled."""
    write_schedules(environ, TICK)
    with running_clocks(environ, own, count=2) as clocks:
        leader = next(clock for clock in clocks if clock.leads)
        other = next(clock for clock in clocks if clock is not leader)
        with frozen(leader.process.pid):
            eventually(lambda: other.leads, 10.0)
        known = len(runs_of(own, "tick"))
        eventually(lambda: len(runs_of(own, "tick")) >= known + 3)
        assert other.leads
        assert leader.stop() == 0
        assert other.leads, "who follows has no lease to give up"
    assert_every_second_once(moments(own))


def test_a_leader_that_is_stopped_hands_over_at_once(own: Bridge, environ: dict[str, str]) -> None:
    """On SIGTERM it releases its lease and removes its heartbeat."""
    write_schedules(environ, TICK)
    with running_clocks(environ, own, count=2) as clocks:
        leader = next(clock for clock in clocks if clock.leads)
        other = next(clock for clock in clocks if clock is not leader)
        stopped_s = time.monotonic()
        assert leader.stop() == 0
        eventually(lambda: other.leads, 5.0)
        assert time.monotonic() - stopped_s < 3.0
        assert [daemon["pid"] for daemon in bridge_status()["daemons"]] == [other.process.pid]


def test_what_was_missed_while_no_clock_ran_is_listed_by_its_source(
    own: Bridge, environ: dict[str, str]
) -> None:
    """`3ox jobs --source clock` shows the late run of one schedule and the skipped one of the other."""
    skip = TICK.replace('"tick"', '"skip"').replace("every = 1", 'every = 1\nmissed = "skip"\nlatest_s = 0.9')
    write_schedules(environ, TICK + skip)
    with running_clocks(environ, own):
        eventually(lambda: runs_of(own, "tick") and runs_of(own, "skip"))
    known = len(runs_of(own, "tick"))
    mark = own.store.call("HGET", f"{own.scripts.prefix}schedules", "tick")
    wanted_ms = msgspec.json.decode(mark)["done_ms"] + 3_500
    eventually(lambda: time.time() * 1000 > wanted_ms)
    with running_clocks(environ, own):
        eventually(lambda: len(runs_of(own, "tick")) >= known + 4)
        eventually(lambda: any(job.status == "cancelled" for job in runs_of(own, "skip")))
    assert_every_second_once(moments(own))
    assert_every_second_once(moments(own, "skip"))
    shown = run_3ox("jobs", "--source", "clock", "--all", "--json", environ=environ)
    jobs = msgspec.json.decode(shown.stdout)["jobs"]
    reasons = [job["reason"] for job in jobs if job["status"] == "cancelled"]
    assert reasons
    assert all(reason.startswith("missed: due at ") and "policy skip" in reason for reason in reasons)
    assert {job["metadata"]["schedule"] for job in jobs} == {"tick", "skip"}
    none = run_3ox("jobs", "--source", "rest", "--json", environ=environ)
    assert msgspec.json.decode(none.stdout)["jobs"] == []


def test_changed_schedules_are_taken_up_without_a_restart(own: Bridge, environ: dict[str, str]) -> None:
    """An invalid one is logged, and the previous schedules stay in force."""
    write_schedules(environ, TICK)
    log = own.loaded.workspace.log_file
    with running_clocks(environ, own):
        eventually(lambda: runs_of(own, "tick"))
        write_schedules(environ, TICK.replace("every = 1", 'every = "soon"'))
        eventually(lambda: "schedules.invalid" in log.read_text())
        known = len(runs_of(own, "tick"))
        eventually(lambda: len(runs_of(own, "tick")) > known)
        write_schedules(environ, TICK.replace('"tick"', '"tock"'))
        eventually(lambda: runs_of(own, "tock"))
        ended = moments(own)[-1]
        eventually(lambda: moments(own, "tock")[-1] > ended + 1)
        assert moments(own)[-1] == ended
        assert own.store.call("HKEYS", f"{own.scripts.prefix}schedules") == [b"tock"]


def test_an_invalid_schedule_ends_the_command(own: Bridge, environ: dict[str, str]) -> None:
    """Exit code 2, the error and the remedy."""
    assert own.loaded.workspace.home.exists()
    write_schedules(environ, TICK.replace("every = 1", 'cron = "soon"'))
    done = run_3ox("clock", environ=environ)
    assert done.returncode == 2
    assert "cron of the schedule 'tick' in 3ox.toml has 1 fields, not 5" in done.stderr


def test_runs_wait_while_the_store_is_unavailable(mortal: tuple[RunningValkey, dict[str, str]]) -> None:
    """Killed and restarted: a leader is elected again, and the runs in between start late, each once."""
    server, environ = mortal
    write_schedules(environ, TICK)
    bridge = connect(load_settings(environ=environ))
    with running_clocks(environ, bridge) as clocks:
        eventually(lambda: len(runs_of(bridge, "tick")) >= 2)
        server.kill()
        back_s = time.monotonic() + 2.0
        eventually(lambda: time.monotonic() > back_s)
        assert clocks[0].process.poll() is None
        server.start()
        known = eventually(lambda: len(runs_of(bridge, "tick")), 10.0)
        eventually(lambda: len(runs_of(bridge, "tick")) >= known + 3)
    assert_every_second_once(moments(bridge))


def test_the_bridge_s_own_duties_are_done(own: Bridge, environ: dict[str, str]) -> None:
    """Samples are taken, a canary passes through a worker, jobs past their retention are deleted."""
    short = {**environ, "BRIDGE_CANARY_INTERVAL_S": "1", "BRIDGE_RETENTION_S": "2"}
    with running_worker(own, environ), running_clocks(short, own):
        eventually(lambda: Metrics(own.reader).series("10s"))
        log = own.loaded.workspace.log_file
        eventually(lambda: "canary.back" in log.read_text())
        eventually(lambda: "jobs.expired" in log.read_text(), 15.0)
    point = Metrics(own.reader).measure(10.0)
    assert point.completed_per_s > 0
    assert point.wait_p50_ms is not None
    assert point.run_p95_ms is not None
    assert point.run_p50_ms is not None
    assert point.run_p50_ms <= point.run_p95_ms
    assert point.states["completed"] == own.reader.summary()["completed"]


def test_old_jobs_and_deliveries_are_removed_where_no_worker_runs(
    own: Bridge, environ: dict[str, str]
) -> None:
    """The scheduler covers every queue, as a worker does."""
    job = make_job("ask", {"prompt": "x"})
    own.submit(job)
    queues = (LLM_QUEUE, DELIVER_QUEUE)
    for queue in queues:
        (fetched,) = own.scripts.fetch("w1", queue, room=1, delivery=queue, lease_ms=60_000).jobs
        own.scripts.settle("w1", fetched.job_id, queue, Settlement(outcome="completed", result=b"1"))
    assert [own.reader.summary(queue)["completed"] for queue in queues] == [1, 1]
    with running_clocks({**environ, "BRIDGE_RETENTION_S": "1"}, own):
        eventually(lambda: [own.reader.summary(queue)["completed"] for queue in queues] == [0, 0], 15.0)


def test_the_series_is_bounded(own: Bridge) -> None:
    """Points for an hour and a week, and no more."""
    metrics = Metrics(own.reader)
    assert [POINTS_MAX[name] * SPACING_S[name] for name in ("10s", "10m")] == [3_600, 7 * 86_400]
    for _ in range(POINTS_MAX["10s"] + 5):
        metrics.sample("10s")
    points = metrics.series("10s")
    assert len(points) == POINTS_MAX["10s"]
    assert points == sorted(points, key=lambda point: point.at_ms)
