"""What `settle` enqueues with the end of an attempt: successors, callbacks of groups, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from middleware.broker.transitions import EnqueueRequest, GroupMember, Settlement
from middleware.job.base import ActorJob
from middleware.job.ids import new_job_id
from middleware.job.schema import encode_job
from tests.middleware.driver import Driver

CALLBACK = Driver.request(new_job_id())
_TTL_MS = 60_000
_QUEUES_MAX = 1000


def member(job_id: str, group: str, *, in_pipeline: bool = False) -> EnqueueRequest:
    """Return the request of a group's member, as ``group.run()`` sends it."""
    options: dict[str, Any] = {"group_completion_uuid": group, "group_completion_callbacks": [{}]}
    if in_pipeline:
        options = {"pipe_target": {"actor_name": "add", "options": options}}
    job = ActorJob(job_type="add", job_id=job_id, options=options)
    return EnqueueRequest(
        job_id=job_id, spec=encode_job(job), job_type="add", input_sha256="0" * 64, priority=5
    )


def complete(driver: Driver, group: str = "", followers: Sequence[EnqueueRequest] = ()) -> str:
    """Run the next job to its end, as a member of this group; return its id."""
    (held,) = driver.fetch()
    of_group = GroupMember(group_id=group, ttl_ms=_TTL_MS, followers=(CALLBACK,)) if group else None
    settlement = Settlement(outcome="completed", followers=tuple(followers), group=of_group)
    driver.scripts.settle(held.worker, held.job_id, held.token, settlement)
    return held.job_id


@pytest.fixture
def ids() -> list[str]:
    """Ids of the three members of a group."""
    return sorted(new_job_id() for _ in range(3))


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("completed_first", [0, 1, 2])
def test_a_group_that_was_sent_again_calls_back_once(
    driver: Driver, ids: list[str], completed_first: int, *, in_pipeline: bool
) -> None:
    """The store failed after two members; ``group.run()`` is called again, which makes another group id."""
    driver.scripts.create_group("before", 3, ttl_ms=_TTL_MS)
    driver.offer(*(member(job_id, "before", in_pipeline=in_pipeline) for job_id in ids[:2]))
    for _ in range(completed_first):
        complete(driver, "before")
    driver.scripts.create_group("again", 3, ttl_ms=_TTL_MS)
    replies = driver.offer(*(member(job_id, "again", in_pipeline=in_pipeline) for job_id in ids))
    assert [reply.outcome for reply in replies] == ["duplicate", "duplicate", "new"]
    for _ in range(2 - completed_first):
        complete(driver, "before")
    assert driver.store.call("EXISTS", driver.keys.job(CALLBACK.job_id)) == 0
    assert complete(driver, "again") == ids[2]
    assert driver.status(CALLBACK.job_id) == "queued"
    assert complete(driver) == CALLBACK.job_id
    assert driver.fetch() == []


def test_groups_with_members_of_their_own_stay_apart(driver: Driver, ids: list[str]) -> None:
    """Only a member that is sent again joins two groups."""
    for group, job_id in zip(("one", "two"), ids, strict=False):
        driver.scripts.create_group(group, 2, ttl_ms=_TTL_MS)
        driver.offer(member(job_id, group))
        complete(driver, group)
    assert driver.store.call("EXISTS", driver.keys.job(CALLBACK.job_id)) == 0


@pytest.mark.parametrize("in_group", [False, True])
def test_a_successor_that_can_never_run_fails_the_job_before_it(driver: Driver, *, in_group: bool) -> None:
    """It depends on a job that has failed: without it, nothing would say that it is missing."""
    failed = driver.add()
    (held,) = driver.fetch()
    driver.scripts.settle(held.worker, held.job_id, held.token, Settlement(outcome="failed"))
    successor = driver.request(depends_on=[failed])
    job_id = driver.add()
    (held,) = driver.fetch()
    group = GroupMember(group_id="g", ttl_ms=_TTL_MS, followers=(successor,)) if in_group else None
    followers = () if in_group else (successor,)
    settlement = Settlement(outcome="completed", followers=followers, group=group)
    assert driver.scripts.settle(held.worker, job_id, held.token, settlement) == ("settled", "failed")
    record = driver.reader.job(job_id)
    assert record.reason == (f"what follows it was refused: heartbeat depends on {failed}, which is failed")
    assert record.error is not None
    assert f"3ox retry {job_id}" in record.error.remedy
    assert driver.store.call("EXISTS", driver.keys.job(successor.job_id)) == 0


def test_a_successor_beyond_the_number_of_queues_fails_the_job_before_it(driver: Driver) -> None:
    """There are as many queues as there may be."""
    names = [f"queue-{number}" for number in range(_QUEUES_MAX)]
    driver.store.call("SADD", driver.keys.queues, *names)
    known, unknown = driver.request(queue=names[0]), driver.request(queue="another")
    for successor, state in ((known, "completed"), (unknown, "failed")):
        job_id = driver.add()
        complete(driver, followers=[successor])
        assert driver.status(job_id) == state
    assert "there are 1000 queues already" in driver.reader.job(job_id).reason
