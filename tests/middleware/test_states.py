"""The table of moves: the same in Python and Lua, every allowed one walked, every other one refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import middleware.broker.scripts as scripts_module
from middleware.broker.transitions import Settlement
from middleware.job.states import FINAL, TRANSITIONS, State
from ops.errors import StoreError
from tests.middleware.driver import Driver

PRELUDE = (Path(scripts_module.__file__).parent / "prelude.lua").read_text()
TRY_MOVE = (
    f"local keys, arguments = KEYS, ARGV\n{PRELUDE}\nbegin(keys, arguments)\n"
    "move(ARGV[2], ARGV[3], ARGV[4], 'jobs', NOW)\nreturn 'moved'"
)

PAIRS = list(itertools.product(State, State))
ALLOWED = [(source, target) for source, targets in TRANSITIONS.items() for target in targets]


def lua_moves() -> set[tuple[str, str]]:
    """Read the table out of the script text."""
    text = PRELUDE.split("local MOVES =", 1)[1].split("\n\n", 1)[0]
    pairs = re.findall(r"(\w+)>(\w+)", text)
    return {(source, target) for source, target in pairs}


def test_lua_and_python_hold_the_same_table() -> None:
    """The scripts allow exactly the moves that the Python table allows."""
    assert lua_moves() == {(str(source), str(target)) for source, target in ALLOWED}


def test_every_state_has_a_row_and_final_ones_lead_only_to_a_retry_by_hand() -> None:
    """No state is forgotten, and an ended job moves on in no other way than back to the queue."""
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS[state] <= {State.QUEUED, State.HELD} for state in FINAL)
    assert TRANSITIONS[State.COMPLETED] == frozenset()


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_move_refuses_what_the_table_does_not_hold(driver: Driver, source: State, target: State) -> None:
    """The one function that moves jobs raises for each forbidden pair and changes nothing."""
    driver.store.call("ZADD", driver.keys.state(source), 1, "job-x")
    command = ("EVAL", TRY_MOVE, 1, driver.prefix, 10, "job-x", str(source), str(target))
    if target in TRANSITIONS[source]:
        assert driver.store.call(*command) == b"moved"
        assert driver.places("job-x") == [target]
        return
    with pytest.raises(StoreError, match=f"cannot go from {source} to {target}"):
        driver.store.call(*command)
    assert driver.places("job-x") == [source]


def queued(driver: Driver) -> str:
    """A job that waits for a worker."""
    return driver.add()


def scheduled(driver: Driver) -> str:
    """A job that is due in a minute."""
    return driver.add(delay_ms=60_000)


def processing(driver: Driver) -> str:
    """A job in the hands of w1."""
    driver.add()
    return driver.take("w1").job_id


def held_by_limit(driver: Driver) -> str:
    """A job that waits for a slot."""
    driver.add(limits="gpu=1/1")
    driver.take("w0")
    job_id = driver.add(limits="gpu=1/1")
    assert driver.fetch("w0") == []
    return job_id


def failed(driver: Driver) -> str:
    """A dead letter."""
    return driver.run("failed")


def cancelled(driver: Driver) -> str:
    """A job that was cancelled before it started."""
    job_id = driver.add()
    assert driver.scripts.cancel(job_id, "test") == ("cancelled", "queued")
    return job_id


def settle_as(outcome: str) -> Callable[[Driver], str]:
    """Run a job up to its settlement."""

    def walk(driver: Driver) -> str:
        driver.add()
        delivery = driver.take("w1")
        assert driver.settle(delivery, outcome, delay_ms=60_000) == ("settled", outcome)
        return delivery.job_id

    return walk


def promoted_from_schedule(driver: Driver) -> str:
    """A delayed job that has become due."""
    job_id = driver.add(delay_ms=1)
    driver.pass_ms(2)
    driver.scripts.promote()
    return job_id


def promoted_from_retry(driver: Driver) -> str:
    """A job whose wait for the next attempt is over."""
    driver.add()
    delivery = driver.take()
    driver.settle(delivery, "retrying", delay_ms=1)
    driver.pass_ms(2)
    driver.scripts.promote()
    return delivery.job_id


def parked(driver: Driver) -> str:
    """A job that was fetched by a worker that does not carry its type."""
    job_id = processing(driver)
    delivery = driver.store.call("HGET", driver.keys.processing("w1"), job_id).decode()
    driver.scripts.park("w1", job_id, delivery, job_type="heartbeat", reason="not carried here")
    return job_id


def cancel_of(prepare: Callable[[Driver], str]) -> Callable[[Driver], str]:
    """Cancel what another recipe prepared."""

    def walk(driver: Driver) -> str:
        job_id = prepare(driver)
        assert driver.scripts.cancel(job_id, "test")[0] == "cancelled"
        return job_id

    return walk


def requeue_of(prepare: Callable[[Driver], str]) -> Callable[[Driver], str]:
    """Retry by hand what another recipe prepared."""

    def walk(driver: Driver) -> str:
        job_id = prepare(driver)
        assert driver.scripts.requeue(job_id, "test") == ("queued", "queued")
        return job_id

    return walk


def released_from_hold(driver: Driver) -> str:
    """A job whose dependency has completed."""
    first = driver.add()
    second = driver.add(depends_on=[first])
    driver.settle(driver.take())
    return second


def released_to_schedule(driver: Driver) -> str:
    """A job whose dependency has completed and that wants a delay after it."""
    first = driver.add()
    second = driver.add(depends_on=[first], delay_ms=60_000)
    driver.settle(driver.take())
    return second


def handed_back(driver: Driver) -> str:
    """A job that its worker gave back."""
    return settle_as("queued")(driver)


def after_a_failure(choice: str) -> Callable[[Driver], str]:
    """A job whose dependency has failed, and what it wants then."""

    def walk(driver: Driver) -> str:
        first = driver.add()
        second = driver.add(depends_on=[first], on_dependency_failure=choice)
        driver.settle(driver.take(), "failed")
        return second

    return walk


failed_with_its_dependency = after_a_failure("fail")
skipped = after_a_failure("skip")


def held_again_of(prepare: Callable[[Driver], str]) -> Callable[[Driver], str]:
    """Retry by hand a job whose dependency is being retried too."""

    def walk(driver: Driver) -> str:
        job_id = prepare(driver)
        driver.scripts.requeue(driver.job(job_id).depends_on[0], "test")
        assert driver.scripts.requeue(job_id, "test") == ("queued", "held")
        return job_id

    return walk


RECIPES: dict[tuple[State, State], Callable[[Driver], str]] = {
    (State.QUEUED, State.PROCESSING): processing,
    (State.QUEUED, State.HELD): held_by_limit,
    (State.QUEUED, State.CANCELLED): cancelled,
    (State.SCHEDULED, State.QUEUED): promoted_from_schedule,
    (State.SCHEDULED, State.CANCELLED): cancel_of(scheduled),
    (State.HELD, State.QUEUED): released_from_hold,
    (State.HELD, State.SCHEDULED): released_to_schedule,
    (State.HELD, State.CANCELLED): cancel_of(held_by_limit),
    (State.PROCESSING, State.COMPLETED): settle_as("completed"),
    (State.PROCESSING, State.FAILED): settle_as("failed"),
    (State.PROCESSING, State.CANCELLED): settle_as("cancelled"),
    (State.PROCESSING, State.RETRYING): settle_as("retrying"),
    (State.PROCESSING, State.HELD): parked,
    (State.PROCESSING, State.QUEUED): handed_back,
    (State.RETRYING, State.QUEUED): promoted_from_retry,
    (State.RETRYING, State.CANCELLED): cancel_of(settle_as("retrying")),
    (State.FAILED, State.QUEUED): requeue_of(failed),
    (State.CANCELLED, State.QUEUED): requeue_of(cancelled),
    (State.HELD, State.FAILED): failed_with_its_dependency,
    (State.FAILED, State.HELD): held_again_of(failed_with_its_dependency),
    (State.CANCELLED, State.HELD): held_again_of(skipped),
}


def test_every_allowed_move_has_a_recipe() -> None:
    """A move added to the table is walked here."""
    assert set(RECIPES) == set(ALLOWED)


@pytest.mark.parametrize(("source", "target"), list(RECIPES), ids=str)
def test_scripts_walk_every_allowed_move(driver: Driver, source: State, target: State) -> None:
    """The job's own state, its one place and its receipt chain all tell the same move."""
    job_id = RECIPES[source, target](driver)
    assert driver.status(job_id) == target
    assert driver.places(job_id) == [target]
    assert driver.chain(job_id)[-2:] == [str(source), str(target)]


PREPARED: dict[State, Callable[[Driver], str]] = {
    State.QUEUED: queued,
    State.SCHEDULED: scheduled,
    State.HELD: held_by_limit,
    State.PROCESSING: processing,
    State.RETRYING: settle_as("retrying"),
    State.COMPLETED: settle_as("completed"),
    State.FAILED: failed,
    State.CANCELLED: cancelled,
}


@pytest.mark.parametrize("state", [s for s in State if s is not State.PROCESSING])
@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "retrying", "queued"])
def test_settling_a_job_that_does_not_run_is_refused(driver: Driver, state: State, outcome: str) -> None:
    """Without the fence no outcome changes anything, in whatever state the job is."""
    job_id = PREPARED[state](driver)
    before = driver.chain(job_id)
    reply = driver.scripts.settle("w9", job_id, "d999", Settlement(outcome=outcome))
    assert reply == ("superseded", str(state))
    assert driver.chain(job_id) == before
    assert driver.places(job_id) == [state]


@pytest.mark.parametrize("state", [s for s in State if s not in {State.FAILED, State.CANCELLED}])
def test_requeue_is_refused_unless_failed_or_cancelled(driver: Driver, state: State) -> None:
    """Only an ended, unsuccessful job is run again."""
    job_id = PREPARED[state](driver)
    assert driver.scripts.requeue(job_id, "test") == ("refused", str(state))
    assert driver.places(job_id) == [state]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_cancelling_an_ended_job_changes_nothing(driver: Driver, state: State) -> None:
    """An ended job stays as it ended."""
    job_id = PREPARED[state](driver)
    before = driver.chain(job_id)
    assert driver.scripts.cancel(job_id, "test") == ("finished", str(state))
    assert driver.chain(job_id) == before


@pytest.mark.parametrize("state", sorted(FINAL | {State.HELD, State.SCHEDULED, State.RETRYING}))
def test_fetch_gives_ready_jobs_only(driver: Driver, state: State) -> None:
    """What is not on the ready queue reaches no worker."""
    PREPARED[state](driver)
    assert driver.fetch("w9", room=10) == []


def test_unknown_outcome_and_unknown_state_are_refused(driver: Driver) -> None:
    """A settlement that the table does not know raises; purging living jobs does too."""
    job_id = processing(driver)
    delivery = driver.store.call("HGET", driver.keys.processing("w1"), job_id).decode()
    with pytest.raises(StoreError):
        driver.scripts.settle("w1", job_id, delivery, Settlement(outcome="held"))
    assert driver.places(job_id) == [State.PROCESSING]
    with pytest.raises(StoreError, match="only ended jobs"):
        driver.scripts.purge("queued", 10)


def test_a_job_that_runs_all_the_same_counts_the_failed_one_as_done(driver: Driver) -> None:
    """With ``run`` a clean-up job follows whatever has become, or becomes, of the one before."""
    job_id = after_a_failure("run")(driver)
    assert driver.status(job_id) == "queued"
    failed_id = driver.job(job_id).depends_on[0]
    assert driver.status(driver.add(depends_on=[failed_id], on_dependency_failure="run")) == "queued"
    assert driver.offer(driver.request(depends_on=[failed_id]))[0].outcome == "dependency"


def test_a_retried_job_waits_for_what_it_depends_on(driver: Driver) -> None:
    """Both are retried: the order of the graph holds."""
    second = after_a_failure("skip")(driver)
    first = driver.job(second).depends_on[0]
    assert driver.scripts.requeue(first, "test") == ("queued", "queued")
    assert driver.scripts.requeue(second, "test") == ("queued", "held")
    assert [delivery.job_id for delivery in driver.fetch(room=9)] == [first]
