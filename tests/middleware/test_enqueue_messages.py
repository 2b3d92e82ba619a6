"""Dramatiq's ``enqueue``: a message's ``eta``, and a queue that no worker consumes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.common import current_millis
from dramatiq.errors import QueueNotFound

from actors.registry import make_broker
from middleware.broker.broker import BridgeBroker
from middleware.job.states import State
from ops.errors import InvalidJob
from ops.settings.load import load_settings

_HOUR_MS = 3_600_000


@pytest.fixture
def broker(tmp_path: Path, valkey: str, prefix: str) -> Iterator[BridgeBroker]:
    """The bridge's broker on the shared store, with one actor of a user."""
    environ = {"BRIDGE_REDIS_URL": valkey, "BRIDGE_KEY_PREFIX": prefix}
    made = make_broker(load_settings(tmp_path, environ=environ))

    @dramatiq.actor(broker=made, queue_name="media")
    def thumbnail() -> None:
        """Do nothing."""

    yield made
    made.close()


def count(broker: BridgeBroker, state: State) -> int:
    """Return how many jobs of the queue are in a state."""
    return int(broker.scripts.store.call("ZCARD", broker.keys.state(state, "media")))


@pytest.mark.parametrize(
    ("eta", "state"),
    [
        (current_millis() + _HOUR_MS, State.SCHEDULED),
        (current_millis() - _HOUR_MS, State.QUEUED),
        (None, State.QUEUED),
        ("tomorrow", State.QUEUED),
        (float("inf"), State.QUEUED),
    ],
    ids=["future", "past", "none", "text", "infinite"],
)
def test_an_eta_is_a_delay(
    broker: BridgeBroker, caplog: pytest.LogCaptureFixture, eta: object, state: State
) -> None:
    """One that is not a number is logged with its value, and the job starts at once; a delay counts more."""
    message: Message[Any] = broker.get_actor("thumbnail").message_with_options(eta=eta)
    with caplog.at_level(logging.WARNING):
        broker.enqueue(message)
    assert count(broker, state) == 1
    assert ("Invalid eta value" in caplog.text) == (eta in {"tomorrow", float("inf")})
    again = message.copy(message_id="again")
    broker.enqueue(again, delay=_HOUR_MS)
    assert count(broker, State.SCHEDULED) == 1 + (state is State.SCHEDULED)


def test_a_queue_that_no_worker_consumes_is_refused(broker: BridgeBroker) -> None:
    """A queue that is declared here, or that of a built-in type, is accepted; then the actor is looked at."""
    message: Message[Any] = broker.get_actor("thumbnail").message()
    with pytest.raises(QueueNotFound, match="medai"):
        broker.enqueue(message.copy(queue_name="medai"))
    with pytest.raises(InvalidJob, match="thumbnial"):
        broker.enqueue(message.copy(actor_name="thumbnial"))
    broker.declare_queue("medai")
    broker.enqueue(message.copy(queue_name="medai"))
    broker.enqueue(Message("llm", "heartbeat", ({},), {}, {}))
    assert count(broker, State.QUEUED) == 0
