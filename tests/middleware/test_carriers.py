"""Why a queued job waits: whether a live worker carries its type."""

from __future__ import annotations

import pytest

from middleware.broker.admission import make_scripts
from middleware.job.reader import Reader
from ops.settings.load import Settings
from ops.store.client import Store


@pytest.mark.parametrize(
    ("types", "queues", "reason"),
    [
        ("heartbeat", "jobs", "waiting for a free worker"),
        ("thumbnail", "media", "no worker carries heartbeat"),
        ("heartbeat", "media", "no worker on queue jobs carries heartbeat"),
        ("", "", "no worker carries heartbeat"),
        (None, None, "waiting for a free worker"),
    ],
)
def test_the_reason_follows_from_the_heartbeats(
    valkey: str, prefix: str, types: str | None, queues: str | None, reason: str
) -> None:
    """A worker of an earlier version, which does not say what it carries, carries all built-in types."""
    store = Store(valkey)
    scripts = make_scripts(store, Settings(key_prefix=prefix))
    scripts.beat(
        "w", 60_000, {"pid": 1, **({} if types is None else {"types": types, "queues": str(queues)})}
    )
    assert _queued(store, prefix) == reason


def test_a_lost_worker_carries_nothing(valkey: str, prefix: str) -> None:
    """The lease decides."""
    store = Store(valkey)
    scripts = make_scripts(store, Settings(key_prefix=prefix))
    scripts.beat("w", -1, {"types": "heartbeat", "queues": "jobs"})
    assert _queued(store, prefix) == "no worker carries heartbeat"


def test_a_stored_reason_stays(valkey: str, prefix: str) -> None:
    """That a job was recovered is still said."""
    store = Store(valkey)
    assert _queued(store, prefix, reason="it was due") == "it was due; no worker carries heartbeat"


def _queued(store: Store, prefix: str, reason: str = "") -> str:
    """Return the reason of a queued job, the same alone and in a list."""
    reader = Reader(store, prefix)
    spec = '{"job_type":"heartbeat","payload":{},"job_id":"j1"}'
    store.call(
        "HSET", reader.keys.job("j1"), "spec", spec, "status", "queued", "created", 0, "reason", reason
    )
    (listed,) = reader.records(["j1"])
    assert reader.job("j1").reason == listed.reason
    return listed.reason
