"""Jobs that wait for approval: the store function."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from middleware.broker.approvals import ApprovalOutcome, Approvals
from middleware.broker.scripts import Scripts
from middleware.job.schema import decode_job, encode_job
from middleware.job.states import State
from ops.store.client import Store
from tests.lossy_link import LossyLink
from tests.middleware.driver import Driver

WHY = "waiting for approval (rule 1)"


@pytest.fixture
def approvals(driver: Driver) -> Approvals:
    """Decides on the driver's jobs; they wait for an hour."""
    return Approvals(driver.scripts, ttl_s=3600)


def hold(driver: Driver, **fields: object) -> str:
    """Enqueue a job that waits for approval, as the admission does."""
    extra = {"on_dependency_failure": fields.pop("on_dependency_failure", "skip")}
    request = driver.request(approval=WHY, **fields)  # type: ignore[arg-type]
    job = msgspec.structs.replace(decode_job(request.spec), depends_on=list(request.depends_on), **extra)
    request = msgspec.structs.replace(request, spec=encode_job(job))
    assert driver.offer(request)[0].status == "held"
    return request.job_id


def test_an_approved_job_runs(driver: Driver, approvals: Approvals) -> None:
    """It is queued, wakes a consumer, and its receipt names who approved it."""
    job_id = hold(driver)
    assert driver.fetch() == []
    assert approvals.approve(job_id, "bob", "looks fine") == ApprovalOutcome("approved", "queued")
    assert driver.bell() == 1
    record = driver.job(job_id)
    assert (record.approval, record.reason) == ("approved", "approved by bob: looks fine")
    assert driver.reader.receipt(job_id).transitions[-1].reason == "approved by bob: looks fine"
    assert driver.take().job_id == job_id
    assert approvals.waiting(10) == []
    assert approvals.is_approved(job_id)


def test_a_denied_job_never_starts(driver: Driver, approvals: Approvals) -> None:
    """It is cancelled, its receipt names who denied it, and its dependents are skipped."""
    job_id = hold(driver)
    other = driver.add(depends_on=[job_id])
    assert approvals.deny(job_id, "bob") == ApprovalOutcome("denied", "cancelled")
    record = driver.job(job_id)
    assert (record.status, record.reason, record.approval) == ("cancelled", "denied by bob", "denied")
    assert driver.chain(job_id) == ["held", "cancelled"]
    assert driver.reader.receipt(job_id).transitions[0].reason == WHY
    assert driver.status(other) == "cancelled"
    assert driver.fetch() == []
    assert approvals.waiting(10) == []


def test_the_same_decision_again_does_no_harm(driver: Driver, approvals: Approvals) -> None:
    """The opposite decision is refused with the first one."""
    yes, no = hold(driver), hold(driver)
    approvals.approve(yes, "bob")
    approvals.deny(no, "bob")
    assert approvals.approve(yes, "eve") == ApprovalOutcome("already", "queued")
    assert approvals.deny(no, "eve") == ApprovalOutcome("already", "cancelled")
    assert approvals.deny(yes, "eve") == ApprovalOutcome("refused", "queued", "approved")
    assert approvals.approve(no, "eve") == ApprovalOutcome("refused", "cancelled", "denied")
    assert driver.chain(yes) == ["held", "queued"]
    assert driver.chain(no) == ["held", "cancelled"]


def test_only_what_waits_for_approval_is_decided(driver: Driver, approvals: Approvals) -> None:
    """Neither unknown jobs, nor those that wait for something else, nor cancelled ones."""
    assert approvals.approve("nosuchjob", "bob") == ApprovalOutcome("unknown", "")
    first = driver.add()
    second = driver.add(depends_on=[first])
    assert approvals.approve(first, "bob") == ApprovalOutcome("refused", "queued", "")
    assert approvals.deny(second, "bob") == ApprovalOutcome("refused", "held", "")
    gone = hold(driver)
    driver.scripts.cancel(gone, "cancelled by bob")
    assert approvals.approve(gone, "bob").outcome == "refused"
    assert approvals.waiting(10) == []
    assert driver.status(gone) == "cancelled"


def test_an_approved_job_still_waits_for_what_it_depends_on(driver: Driver, approvals: Approvals) -> None:
    """It starts after both, in any order."""
    first, second = driver.add(), driver.add()
    job_id = hold(driver, depends_on=[first, second])
    driver.settle(driver.take())
    assert approvals.approve(job_id, "bob") == ApprovalOutcome("approved", "held")
    record = driver.job(job_id)
    assert record.reason == "approved by bob; waiting for 1 other job to complete"
    assert approvals.approve(job_id, "bob") == ApprovalOutcome("already", "held")
    driver.settle(driver.take())
    assert driver.status(job_id) == "queued"
    late = hold(driver, depends_on=[first, second])
    assert approvals.approve(late, "bob") == ApprovalOutcome("approved", "queued")


def test_a_payload_may_speak_of_dependencies(driver: Driver, approvals: Approvals) -> None:
    """A field of that name in the job's data does not count."""
    request = driver.request(approval=WHY)
    job = msgspec.structs.replace(decode_job(request.spec), metadata={"depends_on": "x"})
    driver.offer(msgspec.structs.replace(request, spec=encode_job(job)))
    assert approvals.approve(request.job_id, "bob") == ApprovalOutcome("approved", "queued")


def test_an_approval_comes_too_late_for_a_broken_dependency(driver: Driver, approvals: Approvals) -> None:
    """Its dependency has failed meanwhile: it is skipped."""
    first = driver.add()
    job_id = hold(driver, depends_on=[first])
    driver.settle(driver.take(), "failed")
    assert approvals.approve(job_id, "bob") == ApprovalOutcome("expired", "cancelled")
    assert driver.job(job_id).reason == f"skipped: it depends on {first}, which failed"
    assert driver.places(job_id) == [State.CANCELLED]


def test_a_delay_counts_from_the_dispatch(driver: Driver, approvals: Approvals) -> None:
    """A job that is due later is scheduled; one that would have been due already starts."""
    later, past = hold(driver, delay_ms=60_000), hold(driver, delay_ms=1)
    driver.pass_ms(3)
    assert approvals.approve(later, "bob") == ApprovalOutcome("approved", "scheduled")
    assert approvals.approve(past, "bob") == ApprovalOutcome("approved", "queued")
    assert driver.job(later).due_at is not None
    assert driver.places(later) == [State.SCHEDULED]


def test_an_approved_job_keeps_to_limits(driver: Driver, approvals: Approvals) -> None:
    """If it is held for a slot, no second approval is needed."""
    driver.add(limits="gpu=1/1")
    running = driver.take()
    job_id = hold(driver, limits="gpu=1/1")
    approvals.approve(job_id, "bob")
    assert driver.fetch() == []
    assert driver.status(job_id) == "held"
    assert approvals.waiting(10) == []
    assert approvals.deny(job_id, "eve") == ApprovalOutcome("refused", "held", "approved")
    driver.settle(running)
    assert driver.take().job_id == job_id


def test_an_approval_expires(driver: Driver, approvals: Approvals) -> None:
    """After that time it is cancelled; a later decision is refused, also by the store function itself."""
    swept, late = hold(driver), hold(driver)
    assert approvals.expire() == []
    hour_ago = driver.now_ms() - 3_600_001
    driver.store.call("ZADD", driver.keys.approvals, hour_ago, swept)
    for job_id in (swept, late):
        driver.store.call("HSET", driver.keys.job(job_id), "created", hour_ago)
    assert approvals.expire() == [swept]
    record = driver.job(swept)
    assert (record.status, record.approval) == ("cancelled", "expired")
    assert record.reason == "expired: not approved within 60 min"
    assert approvals.approve(late, "bob") == ApprovalOutcome("expired", "cancelled")
    assert approvals.approve(late, "bob") == ApprovalOutcome("refused", "cancelled", "expired")
    assert driver.chain(late) == ["held", "cancelled"]
    assert driver.store.call("ZCARD", driver.keys.approvals) == 0


def test_expiry_leaves_what_was_decided_alone(driver: Driver, approvals: Approvals) -> None:
    """An entry for an unknown job, or for one that is no longer held, is removed without effect."""
    job_id = hold(driver)
    approvals.approve(job_id, "bob")
    driver.store.call("ZADD", driver.keys.approvals, 1, job_id, 2, "nosuchjob")
    assert approvals.expire() == []
    assert driver.status(job_id) == "queued"
    assert driver.store.call("ZCARD", driver.keys.approvals) == 0


def test_the_list_is_the_oldest_first_and_bounded(driver: Driver, approvals: Approvals) -> None:
    """It has the jobs that wait now, without cancelled ones."""
    ids = [hold(driver) for _ in range(5)]
    for at, job_id in enumerate(ids):
        driver.store.call("ZADD", driver.keys.approvals, 1000 + at, job_id)
    driver.scripts.cancel(ids[1], "test")
    assert approvals.waiting(2) == [ids[0], ids[2]]
    assert approvals.waiting(10) == [ids[0], ids[2], ids[3], ids[4]]


@pytest.mark.parametrize(
    ("choice", "decision"),
    [("run", ApprovalOutcome("approved", "queued")), ("fail", ApprovalOutcome("expired", "failed"))],
)
def test_what_a_job_does_when_a_dependency_fails_is_its_choice(
    driver: Driver, approvals: Approvals, choice: str, decision: ApprovalOutcome
) -> None:
    """``on_dependency_failure`` holds for what failed while the job waited for approval, too."""
    first = driver.add()
    job_id = hold(driver, depends_on=[first], on_dependency_failure=choice)
    driver.settle(driver.take(), "failed")
    assert approvals.approve(job_id, "bob") == decision
    assert driver.places(job_id) == [State(decision.status)]


@pytest.fixture
def link(valkey: str, tmp_path: Path) -> Iterator[LossyLink]:
    """A bad connection to the shared store."""
    with LossyLink(tmp_path / "lossy.sock", valkey.removeprefix("unix://")) as made:
        yield made


def test_a_decision_whose_reply_is_lost_is_made_once(driver: Driver, link: LossyLink, prefix: str) -> None:
    """It is sent again automatically; the receipt has one line for it."""
    lossy = Store(link.url)
    lossy.call("PING")
    over = Approvals(Scripts(lossy, prefix), ttl_s=3600)
    job_id = hold(driver)
    link.lose_next_reply()
    assert over.approve(job_id, "bob") == ApprovalOutcome("already", "queued")
    assert link.lost == 1
    assert driver.chain(job_id) == ["held", "queued"]
    lossy.close()
