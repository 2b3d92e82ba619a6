"""How an idle consumer waits for jobs."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest

from actors.registry import make_broker
from middleware.broker.broker import BridgeBroker
from ops.settings.load import LoadedSettings
from tests.support import eventually

QUEUE = "bells"


@pytest.fixture
def broker(loaded: LoadedSettings) -> Iterator[BridgeBroker]:
    """The broker of a worker with one thread and one actor."""
    made = make_broker(loaded)
    made.slots.open(1)

    @dramatiq.actor(broker=made, queue_name=QUEUE)
    def waited_for() -> None:
        """Be fetched."""

    yield made
    made.close()


def blocked(broker: BridgeBroker) -> int:
    """Return how many waits for this queue's bell the store has begun."""
    clients = broker.scripts.store.call("INFO", "clients").decode().splitlines()
    return int(next(line for line in clients if line.startswith("blocked_clients:")).partition(":")[2])


def test_a_wait_in_the_store_outlasts_a_look(broker: BridgeBroker) -> None:
    """Several looks share one command; the job that comes meanwhile is fetched by the next look."""
    consumer = broker.consume(QUEUE, timeout=20)
    assert next(consumer) is None  # fetches
    for _ in range(3):
        assert next(consumer) is None
        assert blocked(broker) == 1  # the wait goes on between the looks
    sent = broker.get_actor("waited_for").send()
    message = eventually(lambda: next(consumer), 5.0)
    assert message is not None
    assert message.message_id == sent.message_id
    consumer.requeue([message])
    consumer.close()


def test_a_consumer_that_stops_waiting_wakes_another(broker: BridgeBroker) -> None:
    """The store may have woken it in the moment in which it hung up."""
    consumer = broker.consume(QUEUE, timeout=20)
    assert next(consumer) is None
    assert next(consumer) is None
    assert broker.scripts.store.call("LLEN", broker.bell(QUEUE)) == 0
    consumer.close()
    assert broker.scripts.store.call("LLEN", broker.bell(QUEUE)) == 1
