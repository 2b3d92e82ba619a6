"""Runs that are due, late, missed, or submitted twice, at times that the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from ingress.clock.run_submitter import RunSubmitter
from ingress.core.schedules import Schedule, make_schedules, unknown_types
from ingress.dispatch import Bridge
from middleware.broker.leadership import Leadership, Term
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import Bounds
from ops.errors import QueueFull, SettingsError
from ops.settings.load import ScheduleSettings
from tests.clock.conftest import runs_of

#: A Sunday noon; any time would do.
NOON_MS = 1_795_348_800_000
HEARTBEAT = {"job_type": "heartbeat"}


def schedule(name: str = "tick", **fields: Any) -> Schedule:
    """Return a schedule that submits a heartbeat every minute."""
    row = {"every": 60, "job": HEARTBEAT, **fields}
    return make_schedules([ScheduleSettings(id=name, **row)])[0]


class Leader:
    """A leader with a time that the test sets."""

    def __init__(self, bridge: Bridge, name: str = "leader", catch_up_max: int = 1000) -> None:
        self.bridge = bridge
        self.leadership = Leadership(bridge.scripts, name, lease_s=60.0)
        self.submitter = RunSubmitter(bridge, self.leadership, catch_up_max=catch_up_max)
        term = self.leadership.claim().term
        assert term is not None
        self.term: Term = term
        self.submitter.load_progress()

    def at(self, minutes: float, *schedules: Schedule) -> list[int | None]:
        """Handle all runs that are due this many minutes after noon; return the next due times."""
        now_ms = NOON_MS + round(minutes * 60_000)
        following = []
        for item in schedules:
            due_ms = self.submitter.submit_due(self.term, item, now_ms)
            while due_ms is not None and due_ms <= now_ms:
                due_ms = self.submitter.submit_due(self.term, item, now_ms)
            following.append(due_ms)
        return following


def times(bridge: Bridge, name: str = "tick", status: str = "queued") -> list[str]:
    """Return minute and second of the runs of a schedule in one state."""
    return [job.metadata["run_at"][14:19] for job in runs_of(bridge, name) if job.status == status]


def test_each_run_is_fired_once_in_its_turn(own: Bridge) -> None:
    """A new schedule has no due runs; then each run is submitted, and the next due time is returned."""
    leader, tick = Leader(own), schedule()
    assert leader.at(0.5, tick) == [NOON_MS + 60_000]
    assert times(own) == []
    leader.at(1.01, tick)
    leader.at(1.99, tick)
    assert leader.at(2, tick) == [NOON_MS + 180_000]
    assert times(own) == ["01:00", "02:00"]
    job = runs_of(own, "tick")[0]
    assert job.idempotency_key == "schedule:tick:2026-11-22T12:01:00.000Z"
    assert (job.source, job.actor, job.trust) == ("clock", "schedule:tick", "operator")


def test_runs_missed_while_all_were_down_are_run_late_or_recorded_as_skipped(own: Bridge) -> None:
    """Depending on the policy; both are listed."""
    run, skip = schedule("run"), schedule("skip", missed="skip")
    some = schedule("some", latest_s=150)
    leader = Leader(own)
    leader.at(0, run, skip, some)
    leader.at(5.05, run, skip, some)
    assert times(own, "run") == ["01:00", "02:00", "03:00", "04:00", "05:00"]
    assert times(own, "skip") == ["05:00"], "three seconds are a change of the leader, not a miss"
    assert times(own, "skip", "cancelled") == ["01:00", "02:00", "03:00", "04:00"]
    assert times(own, "some") == ["03:00", "04:00", "05:00"]
    late = runs_of(own, "run")[0]
    assert (late.metadata["missed"], late.metadata["late_s"]) == ("run late", "243.0")
    skipped = runs_of(own, "skip")[0]
    assert skipped.reason == "missed: due at 2026-11-22T12:01:00.000Z, 243 s ago, policy skip"
    assert runs_of(own, "some")[0].reason.endswith("policy run, latest_s 150")
    assert [line.status for line in own.reader.receipt(skipped.job_id).transitions] == [
        "scheduled",
        "cancelled",
    ]


def test_of_very_many_missed_runs_the_last_get_a_job_each(own: Bridge) -> None:
    """Older ones share one job, which states their number."""
    leader, tick = Leader(own, catch_up_max=5), schedule()
    leader.at(0, tick)
    leader.at(100, tick)
    assert len(times(own)) == 5
    assert times(own)[-1] == "40:00", "13:40"
    older = [job for job in runs_of(own, "tick") if job.status == "cancelled"]
    assert len(older) == 1
    assert "missed: 95 runs from 2026-11-22T12:01:00.000Z to 2026-11-22T13:35:00.000Z" in older[0].reason


def test_a_single_run_before_those_is_recorded_as_one(own: Bridge) -> None:
    """The reason is in the singular, with the time of the run."""
    leader, tick = Leader(own, catch_up_max=5), schedule()
    leader.at(0, tick)
    leader.at(6, tick)
    (older,) = [job for job in runs_of(own, "tick") if job.status == "cancelled"]
    assert "missed: 1 run, due at 2026-11-22T12:01:00.000Z; the last 5 are handled" in older.reason


@pytest.mark.parametrize("policy", ["run", "skip"])
def test_a_leader_that_died_before_it_noted_a_run_does_not_have_it_twice(own: Bridge, policy: str) -> None:
    """The next leader submits it again, and the store recognizes it."""
    tick = schedule(missed=policy)
    first = Leader(own)
    first.at(0, tick)
    mark = own.store.call("HGET", f"{own.scripts.prefix}schedules", "tick")
    first.at(3, tick)
    before = [(job.job_id, job.status) for job in runs_of(own, "tick")]
    own.store.call("HSET", f"{own.scripts.prefix}schedules", "tick", mark)
    first.leadership.release()
    Leader(own, "second").at(3.5, tick)
    assert [(job.job_id, job.status) for job in runs_of(own, "tick")] == before
    assert len(before) == 3


def test_a_run_that_was_started_in_time_is_not_skipped_afterwards(own: Bridge) -> None:
    """The leader died before it recorded the run, and the next one comes too late to start it."""
    tick = schedule(missed="skip")
    first = Leader(own)
    first.at(0, tick)
    mark = own.store.call("HGET", f"{own.scripts.prefix}schedules", "tick")
    first.at(1, tick)
    own.store.call("HSET", f"{own.scripts.prefix}schedules", "tick", mark)
    first.leadership.release()
    Leader(own, "second").at(1.9, tick)
    assert times(own) == ["01:00"]


def test_a_leader_that_was_taken_for_dead_changes_nothing(own: Bridge) -> None:
    """Its record is refused because of its fencing token, and its run is a duplicate."""
    tick = schedule()
    old = Leader(own)
    old.at(0, tick)
    own.store.call("HSET", f"{own.scripts.prefix}lead", "until", 0)
    new = Leader(own, "new")
    new.at(5, tick)
    mark = own.store.call("HGET", f"{own.scripts.prefix}schedules", "tick")
    assert old.at(2, tick) == [None]
    assert own.store.call("HGET", f"{own.scripts.prefix}schedules", "tick") == mark
    assert times(own) == ["01:00", "02:00", "03:00", "04:00", "05:00"]


def test_another_timing_has_missed_nothing(own: Bridge) -> None:
    """A changed timing starts without missed runs; a changed job with the same timing does not."""
    leader = Leader(own)
    leader.at(0, schedule())
    leader.at(5.5, schedule(every="2m"))
    assert times(own) == []
    leader.at(8.5, schedule(every="2m", job={**HEARTBEAT, "payload": {"nonce": "other"}}))
    assert times(own) == ["06:00", "08:00"]


def test_the_store_s_clock_may_jump(own: Bridge) -> None:
    """Forward: runs in between are missed. Back: no run is doubled. Far back: it continues from there."""
    leader, tick = Leader(own), schedule()
    leader.at(0, tick)
    leader.at(1, tick)
    leader.at(3.2, tick)
    assert times(own) == ["01:00", "02:00", "03:00"]
    leader.at(1.5, tick)
    leader.at(3.5, tick)
    assert len(times(own)) == 3
    assert leader.at(3.5 - 24 * 60, tick) == [NOON_MS + 4 * 60_000 - 86_400_000]


def test_a_full_queue_keeps_a_run_due(own: Bridge) -> None:
    """It is not recorded as handled, and starts when there is room."""
    tick = schedule()
    leader = Leader(own)
    leader.at(0, tick)
    roomy = own.scripts.bounds
    own.scripts.bounds = Bounds(queue_max=1)
    with pytest.raises(QueueFull):
        leader.at(2.1, tick)
    assert times(own) == ["01:00"]
    own.scripts.bounds = roomy
    leader.at(2.2, tick)
    assert times(own) == ["01:00", "02:00"]
    assert isinstance(own.scripts, Scripts)


def test_a_job_that_is_refused_does_not_stop_the_schedule(own: Bridge) -> None:
    """An unknown project is logged, and the next run has its turn."""
    leader = Leader(own)
    task = schedule(job={"job_type": "task.custom", "project": "none", "payload": {"task": "x"}})
    leader.at(0, task)
    assert leader.at(2, task) == [NOON_MS + 180_000]
    assert runs_of(own, "tick") == []


def test_schedules_that_are_gone_are_forgotten(own: Bridge) -> None:
    """A schedule that is added again has missed no runs."""
    leader = Leader(own)
    leader.at(0, schedule("a"), schedule("b"))
    leader.submitter.forget_others(leader.term, [schedule("b")])
    leader.at(5.5, schedule("a"), schedule("b"))
    assert times(own, "a") == []
    assert len(times(own, "b")) == 5


def test_an_unknown_type_is_named(own: Bridge) -> None:
    """It may be that of a worker that has not started yet: its runs are refused, the others are not."""
    items = [schedule("tick"), schedule("tock", job={"job_type": "heartbaet"})]
    reason = unknown_types(own, items)
    assert list(reason) == ["tock"]
    assert "'heartbaet'. Did you mean 'heartbeat'?" in reason["tock"]
    leader = Leader(own)
    leader.at(0, *items)
    leader.at(1, *items)
    assert times(own, "tick") == ["01:00"]
    assert times(own, "tock") == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"every": None}, "either cron or every"),
        ({"cron": "* * * * *"}, "either cron or every"),
        ({"every": "soon"}, "not an interval"),
        ({"every": None, "cron": "soon"}, "fields, not 5"),
        ({"timezone": "Mars/Olympus"}, "not a time zone"),
        ({"job": {"payload": {}}}, "lacks 'job_type'"),
        ({"job": {"job_type": "shell.cmd"}}, "payload.argv"),
        ({"job": {"job_type": "heartbeat", "sorce": "x"}}, "unknown key 'sorce'"),
        ({"job": {"job_type": "heartbeat", "trust": "member"}}, "unknown key 'trust'"),
    ],
)
def test_an_invalid_schedule_is_refused(fields: dict[str, Any], said: str) -> None:
    """The error names the schedule, the problem and a remedy."""
    with pytest.raises(SettingsError) as caught:
        schedule("broken", **fields)
    assert said in caught.value.message
    assert "'broken'" in caught.value.message
    assert caught.value.remedy


def test_two_schedules_of_one_name_are_refused() -> None:
    """They would share their runs."""
    row = ScheduleSettings(id="x", every=1, job=HEARTBEAT)
    with pytest.raises(SettingsError, match="Two schedules"):
        make_schedules([row, row])
