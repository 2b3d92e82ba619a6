"""Replaces ``tests/conftest.py`` of Dramatiq's suite: its stub broker is our broker on a real store."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.rate_limits import backends as rate_backends
from dramatiq.results import backends as result_backends_of_dramatiq

from actors.registry import make_broker
from middleware.broker.broker import BridgeBroker
from ops.settings.load import load_settings

logging.basicConfig(level=logging.INFO)


#: Tests that cannot pass here, with the reason. Every other test passes.
DIFFERENT = {
    "test_shutdown_notifications_are_received": "a job that a stopping worker interrupts goes back to its "
    "queue, whatever its max_retries: no restart fails a job",
    "test_shutdown_notifications_dont_notify_completed_threads": "as above",
    "test_actors_can_be_sent_messages": "reads the stub broker's own queue",
    "test_messages_belonging_to_missing_actors_are_rejected": "a message of an unknown actor is refused when "
    "it is enqueued",
    "test_worker_handles_non_numeric_eta_and_logs_warning": "writes into the stub broker's own queue",
    "test_worker_handles_none_eta": "writes into the stub broker's own queue",
    "test_broker_middleware_can_be_added_before_other_middleware": "expects AgeLimit to be the first",
    "test_broker_middleware_can_be_added_after_other_middleware": "expects AgeLimit to be the first",
    "test_groups_with_completion_callbacks_fail_unless_group_callbacks_is_set_up": "they are always set up",
    "test_messageproxy_representation": "consumes without a worker: no thread is free",
    "test_messages_can_fail_to_get_results_if_there_is_no_backend": "there always is one",
    "test_stub_broker_raises_queue_error_when_enqueueing_messages_on_undeclared_queues": "enqueues a mock, "
    "which is not a message of a known type",
    "test_stub_broker_can_be_flushed": "reads the stub broker's own queue",
    "test_stub_broker_respects_prefetch": "nothing is prefetched",
    "test_workers_process_messages_in_order": "nothing is prefetched",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect those to fail."""
    for item in items:
        reason = DIFFERENT.get(item.name)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


class DeadLetters(dramatiq.Middleware):
    """Keeps failed messages with what was raised, as the stub broker does."""

    def __init__(self) -> None:
        self.by_queue: dict[str, list[tuple[MessageProxy, BaseException | None]]] = {}

    def before_nack(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        """Keep it."""
        del broker
        self.by_queue.setdefault(message.queue_name, []).append((message, message._exception))


def as_stub(broker: BridgeBroker) -> BridgeBroker:
    """Give a broker what the suite uses of the stub broker beside Dramatiq's interface."""
    letters = DeadLetters()
    broker.add_middleware(letters)

    class Stub(type(broker)):  # type: ignore[misc]
        """Our broker, with the stub broker's ``join`` and ``dead_letters``."""

        fail_fast_default = True

        @property
        def dead_letters(self) -> list[MessageProxy]:
            """Failed messages of all queues."""
            return [message for found in letters.by_queue.values() for message, _ in found]

        @property
        def dead_letters_by_queue(self) -> dict[str, list[MessageProxy]]:
            """Failed messages by queue."""
            return {queue: [message for message, _ in found] for queue, found in letters.by_queue.items()}

        def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
            """Wait for the queue; raise what a message raised."""
            super().join(queue_name, timeout=timeout)
            if self.fail_fast_default if fail_fast is None else fail_fast:
                for _, error in letters.by_queue.get(queue_name, []):
                    raise (error or Exception("Message failed with unknown error")) from None

    broker.__class__ = Stub
    return broker


@pytest.fixture
def stub_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[BridgeBroker]:
    """Our broker."""
    with tempfile.TemporaryDirectory(prefix="suite-", ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("BRIDGE_HOME", home)
        monkeypatch.setenv("BRIDGE_REDIS_URL", os.environ["SUITE_REDIS_URL"])
        monkeypatch.setenv("BRIDGE_KEY_PREFIX", f"t{uuid.uuid4().hex[:12]}:")
        broker = as_stub(make_broker(load_settings(Path(home))))
        dramatiq.set_broker(broker)
        yield broker
        broker.flush_all()
        broker.close()


@pytest.fixture
def stub_worker(stub_broker: BridgeBroker) -> Iterator[Worker]:
    """A worker of the broker."""
    worker = Worker(stub_broker, worker_timeout=100, worker_threads=32)
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def info_logging() -> Iterator[None]:
    """Log at the level of a deployment."""
    logger = logging.getLogger()
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.DEBUG)


@pytest.fixture(params=["redis", "stub"])
def rate_limiter_backend(request: pytest.FixtureRequest) -> Any:
    """Dramatiq's own."""
    if request.param == "stub":
        return rate_backends.StubBackend()  # type: ignore[no-untyped-call]
    backend = rate_backends.RedisBackend(url=os.environ["SUITE_REDIS_URL"])
    backend.client.flushall()
    return backend


@pytest.fixture
def stub_rate_limiter_backend() -> Any:
    """Dramatiq's own."""
    return rate_backends.StubBackend()  # type: ignore[no-untyped-call]


@pytest.fixture
def result_backends() -> dict[str, Any]:
    """Dramatiq's own, on the same store."""
    redis = result_backends_of_dramatiq.RedisBackend(url=os.environ["SUITE_REDIS_URL"])
    return {"redis": redis, "stub": result_backends_of_dramatiq.StubBackend()}


@pytest.fixture(params=["redis", "stub"])
def result_backend(request: pytest.FixtureRequest, result_backends: dict[str, Any]) -> Any:
    """One of them."""
    return result_backends[request.param]


@pytest.fixture
def redis_result_backend(result_backends: dict[str, Any]) -> Any:
    """The one in the store."""
    return result_backends["redis"]


@pytest.fixture
def stub_result_backend(result_backends: dict[str, Any]) -> Any:
    """The one in memory."""
    return result_backends["stub"]


@pytest.fixture
def redis_broker() -> None:
    """Not part of this run."""
    pytest.skip("Redis broker of Dramatiq")
