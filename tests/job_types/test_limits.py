"""Limits of what a message carries, and what becomes of jobs that cannot follow or cannot be run here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend

from middleware.broker.admission import make_admission
from middleware.broker.admission_rules import OPTIONS_DEPTH_MAX, AdmissionRules
from middleware.broker.broker import BridgeBroker
from middleware.broker.type_directory import TypeDirectory
from middleware.group_callbacks import BridgeGroupCallbacks
from middleware.job.base import ActorJob
from middleware.job.registry import JobType
from middleware.job.schema import make_job
from middleware.job.signature import ActorSignature
from middleware.job.types import JOB_TYPES
from ops.errors import InvalidJob
from ops.settings.load import Settings
from tests.job_types.conftest import Pools
from tests.middleware.driver import Driver
from tests.support import eventually


def add(x: int, y: int = 0) -> int:
    """Be an actor's function."""
    return x + y


def rules(**settings: Any) -> AdmissionRules:
    """Return admission rules that know one actor."""
    types = TypeDirectory()
    types.declare(JobType(name="add", summary="", payload=None, signature=ActorSignature(add)))
    return AdmissionRules(Settings(**settings), types)


def nested(messages: int) -> dict[str, Any]:
    """Return the options of the first message of a pipeline."""
    options: dict[str, Any] = {}
    for _ in range(messages - 1):
        options = {"pipe_target": dramatiq.Message("default", "add", (1,), {}, options).asdict()}
    return options


def test_a_long_pipeline_is_refused_before_it_breaks_a_transition() -> None:
    """The store's JSON parser stops at 1,000 levels."""
    longest = OPTIONS_DEPTH_MAX // 2
    assert rules().prepare(make_job("add", {"x": 1}, options=nested(longest))).job.job_type == "add"
    for messages in (longest + 2, 2_000):
        with pytest.raises(InvalidJob, match="nested more than 600 levels") as refused:
            rules().prepare(ActorJob(job_type="add", payload={"x": 1}, options=nested(messages)))
        assert refused.value.field == "options"


def test_large_options_are_refused() -> None:
    """As a large payload is."""
    with pytest.raises(InvalidJob, match="the limit is 1000"):
        rules(payload_max_bytes=1000).prepare(make_job("add", {"x": 1}, options={"note": "x" * 2000}))


@pytest.fixture
def driver(valkey: str, prefix: str) -> Iterator[Driver]:
    """The store functions with their default limits."""
    made = Driver(valkey, prefix)
    yield made
    made.close()


def test_a_built_in_job_that_an_older_worker_held_is_released(driver: Driver) -> None:
    """A worker of this version queues it again; the type is not among the published ones."""
    job_id = driver.add()
    driver.take("w1")
    delivery = driver.store.call("HGET", driver.keys.processing("w1"), job_id).decode()
    driver.scripts.park("w1", job_id, delivery, job_type="heartbeat", reason="not known here")
    assert driver.status(job_id) == "held"
    assert driver.scripts.publish([("heartbeat", "jobs", b"")]) == []
    assert driver.status(job_id) == "queued"
    assert driver.reader.published_types() == {}
    assert "heartbeat" in JOB_TYPES


def test_a_group_whose_callback_does_not_fit_says_so(pools: Pools) -> None:
    """The member fails with the reason, instead of a callback that never comes."""
    with pools.running():
        pools.python(
            "from dramatiq import group\n"
            "members = group([add.message(1, 1)])\n"
            "members.add_completion_callback(add.message('one', 1))\n"
            "members.run()"
        )
        eventually(lambda: pools.bridge.reader.summary()["failed"] == 1, 15.0)
    (job,) = pools.bridge.reader.page(limit=5).jobs
    assert "what follows it was refused: The argument 'x' is not valid" in job.reason


def test_the_longest_pipeline_runs_to_its_end(pools: Pools) -> None:
    """Its options are read and written at every step, by the store too."""
    with pools.running():
        result = pools.python(
            "from dramatiq import pipeline\n"
            f"rest = [add.message(1) for _ in range({OPTIONS_DEPTH_MAX // 2 - 1})]\n"
            "steps = pipeline([add.message(0, 1), *rest])\n"
            "print(json.dumps(steps.run().get_result(block=True, timeout=50_000)))"
        )
    assert result == OPTIONS_DEPTH_MAX // 2
    assert pools.bridge.scripts.purge("completed", 1000) == OPTIONS_DEPTH_MAX // 2


def test_callbacks_of_a_group_come_once_beside_dramatiqs_own_middleware(driver: Driver) -> None:
    """A program that comes from Dramatiq adds ``GroupCallbacks``, which would call back with every member."""
    ours = BridgeGroupCallbacks(driver.scripts)
    admission = make_admission(driver.scripts, Settings())
    broker = BridgeBroker(driver.scripts, admission, lease_ms=1000, middleware=[ours])
    broker.add_middleware(GroupCallbacks(StubBackend(), barrier_ttl=1234))  # type: ignore[no-untyped-call]
    assert broker.middleware == [ours]
    assert ours.barrier_ttl == 1234
