"""The checker can fail: it finds what is lost, committed twice, or run without a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from ingress.dispatch import Bridge
from middleware.broker.transitions import Settlement
from middleware.job.schema import make_job
from ops.settings.load import LoadedSettings
from tests.chaos.compositions import Composition
from tests.chaos.faults import Kill
from tests.chaos.follow_ups import Part, judge_follow_ups
from tests.chaos.verdict import Accepted, Journal, Judge, Verdict
from tests.support import eventually

WORKER, OTHER, THIRD = "host-1-aaaa", "host-2-bbbb", "host-3-cccc"


@pytest.fixture
def bridge(loaded: LoadedSettings) -> Bridge:
    """A bridge without workers: these tests move the jobs themselves."""
    return Bridge(loaded)


def submit(bridge: Bridge, kind: str = "heartbeat") -> Accepted:
    """Enqueue a job and note it as accepted."""
    receipt = bridge.submit(make_job("heartbeat", {}))
    return Accepted(receipt.job_id, kind, receipt.status, 0)


def store_ms(bridge: Bridge) -> int:
    """Return the store's time, in milliseconds."""
    seconds, microseconds = (int(part) for part in bridge.store.call("TIME"))
    return seconds * 1000 + microseconds // 1000


def run(bridge: Bridge, job: Accepted, worker: str = WORKER, *, delivery: str = "d1") -> None:
    """Fetch a job and complete it."""
    bridge.scripts.fetch(worker, "jobs", room=1, delivery=delivery, lease_ms=5000)
    answer = bridge.scripts.settle(worker, job.job_id, delivery, Settlement(outcome="completed"))
    assert answer == ("settled", "completed")


def judge(
    bridge: Bridge,
    *jobs: Accepted,
    journal: Journal | None = None,
    ends: dict[str, list[str]] | None = None,
    kills: tuple[Kill, ...] = (),
) -> Verdict:
    """Judge these jobs."""
    checker = Judge(
        Journal() if journal is None else journal, {} if ends is None else ends, kills, outages=()
    )
    return checker.judge(jobs, bridge.store, bridge.loaded.settings.key_prefix)


def test_a_job_that_ran_is_in_order(bridge: Bridge) -> None:
    """One start, one end: nothing to find."""
    job = submit(bridge)
    run(bridge, job)
    verdict = judge(bridge, job, ends={job.job_id: ["1-0"]})
    assert verdict.faults == {}
    assert verdict.by_status == {"completed": 1}


def test_a_job_that_never_ended_or_is_unknown_is_lost(bridge: Bridge) -> None:
    """A job still queued and one that the store does not know are both lost."""
    waiting, unknown = submit(bridge), Accepted("00000000000000000000", "heartbeat", "queued", 1)
    verdict = judge(bridge, waiting, unknown)
    assert verdict.lost == [waiting.job_id, unknown.job_id]


def test_two_ends_in_the_receipt_are_a_commit_too_many(bridge: Bridge) -> None:
    """A second final line in the chain is found."""
    job = submit(bridge)
    run(bridge, job)
    chain = bridge.reader.keys.receipts(job.job_id)
    bridge.store.call("RPUSH", chain, bridge.store.call("LINDEX", chain, -1))
    assert judge(bridge, job).committed_twice == [job.job_id]


def test_two_events_of_an_end_are_a_commit_too_many(bridge: Bridge) -> None:
    """So is an end that was told of, then forgotten by the store, then told of again."""
    job = submit(bridge)
    run(bridge, job)
    assert judge(bridge, job, ends={job.job_id: ["1-0", "2-0"]}).committed_twice == [job.job_id]


def test_a_start_that_the_store_knows_nothing_of_is_unexplained(bridge: Bridge) -> None:
    """The job itself noted two starts for one delivery."""
    job = submit(bridge, "tiny")
    run(bridge, job)
    key = (job.job_id, WORKER)
    verdict = judge(bridge, job, journal=Journal(starts=Counter({key: 2}), ends=Counter({key: 1})))
    assert verdict.unexplained == [job.job_id]


def test_a_command_that_never_reached_its_end_was_not_completed(bridge: Bridge) -> None:
    """The store says completed, the job's own notes do not."""
    job = submit(bridge, "tiny")
    run(bridge, job)
    assert judge(bridge, job).unfounded == [job.job_id]


def test_a_recovery_explains_a_second_start_and_is_timed(bridge: Bridge) -> None:
    """Taken back from a killed worker and run elsewhere: no fault, and one recovery time."""
    job = submit(bridge)
    bridge.scripts.fetch(WORKER, "jobs", room=1, delivery="d1", lease_ms=5000)
    at_ms = int(bridge.store.call("TIME")[0]) * 1000.0
    bridge.scripts.recover(WORKER, how="a test")
    run(bridge, job, OTHER)
    verdict = judge(bridge, job, kills=(Kill(worker_id=WORKER, at_ms=at_ms, jobs=[job.job_id]),))
    assert verdict.faults == {}
    assert (verdict.run_twice, dict(verdict.rerun_after)) == ([job.job_id], {"recovered": 1})
    assert len(verdict.recovery_ms) == 1
    assert verdict.taken_for_dead == []


def test_a_job_that_waits_on_purpose_is_timed_apart(bridge: Bridge) -> None:
    """Two workers died with it, so it was put off: that wait says nothing of how fast the recovery is."""
    job = submit(bridge)
    at_ms = int(bridge.store.call("TIME")[0]) * 1000.0
    for worker, delivery in ((WORKER, "d1"), (OTHER, "d2")):
        bridge.scripts.fetch(worker, "jobs", room=1, delivery=delivery, lease_ms=5000)
        bridge.scripts.recover(worker, how="a test")
    eventually(lambda: bridge.scripts.fetch(THIRD, "jobs", room=1, delivery="d3", lease_ms=5000).jobs)
    kills = tuple(Kill(worker_id=worker, at_ms=at_ms, jobs=[job.job_id]) for worker in (WORKER, OTHER))
    verdict = judge(bridge, job, kills=kills)
    assert (len(verdict.recovery_ms), len(verdict.put_off_ms)) == (1, 1)
    (reason,) = verdict.failures
    assert reason.startswith("retrying: recovered from # (a test)"), "one reason for all workers"


def test_a_worker_that_works_on_was_not_dead(bridge: Bridge) -> None:
    """Its job was taken from it, and it was seen at work after that."""
    job = submit(bridge)
    bridge.scripts.fetch(WORKER, "jobs", room=1, delivery="d1", lease_ms=5000)
    bridge.scripts.recover(WORKER, how="a test")
    taken_ms = store_ms(bridge)
    while store_ms(bridge) == taken_ms:  # receipts tell milliseconds
        continue
    run(bridge, job, WORKER, delivery="d2")
    assert judge(bridge, job).taken_for_dead == [WORKER]


def part(actor: str, at: int, chain: str = "c", *, status: str = "completed", failures: int = 0) -> Part:
    """Return a job of a composition."""
    return Part(job_id=f"{chain}{actor}{at}", chain=chain, node=(actor, at), status=status, failures=failures)


PIPELINE = Composition("c", "pipeline", pipelines=3, sent=True)
GROUP = Composition("c", "group", members=1, pipelines=1, sent=True)
IN_GROUP = [part("member", 0), part("step", 0, "c.0"), part("step", 1, "c.0")]
CALLBACKS = [part("gathered", 0), part("gathered", 1)]


@pytest.mark.parametrize(
    ("composition", "parts", "faults"),
    [
        (PIPELINE, [part("step", 0), part("step", 1), part("step", 2)], set()),
        (PIPELINE, [part("step", 0), part("step", 2)], {"follow-ups missing", "follow-ups sent early"}),
        (PIPELINE, [part("step", 0), part("step", 1)], {"follow-ups missing"}),
        (PIPELINE, [], {"follow-ups missing"}),
        (Composition("c", "pipeline", pipelines=3), [], set()),
        (PIPELINE, [part("step", at) for at in (0, 1, 1, 2)], {"follow-ups sent twice"}),
        (PIPELINE, [part("step", 0, status="failed")], {"user jobs with a wrong end"}),
        (GROUP, [*IN_GROUP, *CALLBACKS], set()),
        (GROUP, IN_GROUP, {"follow-ups missing"}),
        (GROUP, [*IN_GROUP, *CALLBACKS, *CALLBACKS], {"follow-ups sent twice"}),
        (
            GROUP,
            [*IN_GROUP[:2], part("step", 1, "c.0", status="processing"), *CALLBACKS],
            {"follow-ups sent early", "user jobs with a wrong end"},
        ),
        (Composition("c", "group", members=2), [part("member", 0)], set()),
        (
            Composition("c", "uneven", sent=True),
            [part("uneven", 0, failures=1), part("succeeded", 0), part("noted", 0)],
            set(),
        ),
        (Composition("c", "uneven", sent=True), [part("uneven", 0)], {"follow-ups missing"}),
        (
            Composition("c", "doomed", sent=True),
            [part("doomed", 0, status="failed", failures=2), part("noted", 0)],
            {"follow-ups missing"},
        ),
    ],
)
def test_follow_ups_are_there_once(composition: Composition, parts: list[Part], faults: set[str]) -> None:
    """Each step, each callback of a group, each callback of a message; none before what it follows."""
    assert judge_follow_ups([composition], parts).faults.keys() == faults


def test_an_end_that_a_killed_store_had_not_written_is_told_apart(bridge: Bridge) -> None:
    """While its disk is busy, the store puts off writing for two seconds, and answers."""
    job = submit(bridge)
    run(bridge, job)
    told = {job.job_id: ["10000-0", "20000-0"]}
    for kill_ms, forgotten in ((10_500.0, [job.job_id]), (13_000.0, []), (9_999.0, [])):
        checker = Judge(Journal(), told, (), (), [kill_ms])
        verdict = checker.judge([job], bridge.store, bridge.loaded.settings.key_prefix)
        assert verdict.forgotten == forgotten
        assert bool(verdict.committed_twice) is not bool(forgotten)
