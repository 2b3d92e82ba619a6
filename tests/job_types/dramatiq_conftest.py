"""Replaces ``tests/conftest.py`` of Dramatiq's suite: its stub broker is our broker on a real store."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.rate_limits import backends as rate_backends
from dramatiq.results import backends as result_backends_of_dramatiq

from actors.registry import make_broker
from middleware.broker.broker import BridgeBroker
from ops.settings.load import load_settings

logging.basicConfig(level=logging.INFO)


_START_S = 5.0
MEMCACHED = str(shutil.which("memcached"))
#: Backends of rate limiters and results. Memcached needs its program and the package pylibmc.
BACKENDS = ["redis", "stub"]
if shutil.which("memcached") is not None and importlib.util.find_spec("pylibmc") is not None:
    BACKENDS.append("memcached")

_REDIS = "of Dramatiq's broker for Redis"
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
    "test_actor_warning_when_returns_result_and_no_results_middleware_present": "results are always stored",
    "test_stub_broker_raises_queue_error_when_enqueueing_messages_on_undeclared_queues": "enqueues a mock, "
    "which is not a message of a known type",
    "test_stub_broker_can_be_flushed": "reads the stub broker's own queue",
    "test_stub_broker_respects_prefetch": "nothing is prefetched",
    "test_workers_process_messages_in_order": "nothing is prefetched",
    "test_actors_can_prioritize_work": "nothing is prefetched: the first message, of low priority, may be "
    "fetched before the others are sent",
    "test_redis_broker_can_connect_via_url": "of Dramatiq's RedisBroker and a Redis at the default port",
    "test_redis_broker_can_connect_via_client": "of Dramatiq's RedisBroker and a Redis at the default port",
    "test_redis_consumer_ack_can_retry_on_connection_error": f"replaces do_ack {_REDIS}",
    "test_redis_consumer_nack_can_retry_on_connection_error": f"replaces do_nack {_REDIS}",
    "test_redis_consumer_nack_does_not_raise_on_missing_id": "acknowledges a message that it has not fetched",
    "test_redis_unacked_messages_can_be_requeued": f"calls do_enqueue {_REDIS}",
    "test_redis_messages_can_be_dead_lettered": f"reads the keys {_REDIS}",
    "test_redis_dead_lettered_messages_are_cleaned_up": f"reads the keys {_REDIS}",
    "test_redis_messages_belonging_to_missing_actors_are_rejected": "a message of an unknown actor is "
    "refused when it is enqueued",
    "test_redis_requeues_unhandled_messages_on_shutdown": f"reads the keys {_REDIS}",
    "test_redis_requeues_unhandled_delay_messages_on_shutdown": f"reads the keys {_REDIS}",
    "test_redis_join_race_condition": f"calls do_qsize {_REDIS}",
}


#: Of these: what passes or not by the time that it takes; what takes most of a minute to fail.
TIMED = {"test_actors_can_prioritize_work", "test_shutdown_notifications_dont_notify_completed_threads"}
LONG = {
    "test_redis_dead_lettered_messages_are_cleaned_up",
    "test_redis_join_race_condition",
    "test_shutdown_notifications_are_received",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect those to fail."""
    for item in items:
        reason = DIFFERENT.get(item.name)
        if reason is not None:
            item.add_marker(
                pytest.mark.xfail(reason=reason, strict=item.name not in TIMED, run=item.name not in LONG)
            )


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
def backends_url() -> str:
    """A database for Dramatiq's own backends, apart from the broker's, and empty."""
    process = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    url = f"{os.environ['SUITE_REDIS_URL']}?db={1 + int(process)}"
    client = redis.Redis.from_url(url)
    client.flushdb()
    client.close()
    return url


@pytest.fixture(scope="session")
def memcached() -> Iterator[str]:
    """Address of a Memcached of this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    running = subprocess.Popen([MEMCACHED, "-l", "127.0.0.1", "-p", str(port), *user])
    deadline_s = time.monotonic() + _START_S
    while not _listens(port) and time.monotonic() < deadline_s:
        continue
    yield f"127.0.0.1:{port}"
    running.terminate()
    running.wait()


def _listens(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def bridge_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[BridgeBroker]:
    """Our broker, with a workspace and a key prefix of its own."""
    with tempfile.TemporaryDirectory(prefix="suite-", ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("BRIDGE_HOME", home)
        monkeypatch.setenv("BRIDGE_REDIS_URL", os.environ["SUITE_REDIS_URL"])
        monkeypatch.setenv("BRIDGE_KEY_PREFIX", f"t{uuid.uuid4().hex[:12]}:")
        broker = make_broker(load_settings(Path(home)))
        dramatiq.set_broker(broker)
        yield broker
        broker.flush_all()
        broker.close()


@pytest.fixture
def stub_broker(bridge_broker: BridgeBroker) -> BridgeBroker:
    """In the place of the broker in memory."""
    return as_stub(bridge_broker)


@pytest.fixture
def redis_broker(bridge_broker: BridgeBroker) -> BridgeBroker:
    """In the place of the broker over Redis."""
    return bridge_broker


@pytest.fixture
def redis_worker(bridge_broker: BridgeBroker) -> Iterator[Worker]:
    """A worker of our broker."""
    worker = Worker(bridge_broker, worker_threads=32)
    worker.start()
    yield worker
    worker.stop()


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


@pytest.fixture(params=BACKENDS)
def rate_limiter_backend(request: pytest.FixtureRequest) -> Any:
    """Dramatiq's own."""
    return request.getfixturevalue(f"{request.param}_rate_limiter_backend")


@pytest.fixture
def stub_rate_limiter_backend() -> Any:
    """The one in memory."""
    return rate_backends.StubBackend()  # type: ignore[no-untyped-call]


@pytest.fixture
def redis_rate_limiter_backend(backends_url: str) -> Any:
    """The one in Redis."""
    return rate_backends.RedisBackend(url=backends_url)


@pytest.fixture
def memcached_rate_limiter_backend(memcached: str) -> Any:
    """The one in Memcached, empty."""
    backend = rate_backends.MemcachedBackend(servers=[memcached], binary=True)
    with backend.pool.reserve() as client:
        client.flush_all()
    return backend


@pytest.fixture
def result_backends(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Dramatiq's own, by name."""
    return {name: request.getfixturevalue(f"{name}_result_backend") for name in BACKENDS}


@pytest.fixture(params=BACKENDS)
def result_backend(request: pytest.FixtureRequest) -> Any:
    """One of them."""
    return request.getfixturevalue(f"{request.param}_result_backend")


@pytest.fixture
def redis_result_backend(backends_url: str) -> Any:
    """The one in Redis."""
    return result_backends_of_dramatiq.RedisBackend(url=backends_url)


@pytest.fixture
def stub_result_backend() -> Any:
    """The one in memory."""
    return result_backends_of_dramatiq.StubBackend()


@pytest.fixture
def memcached_result_backend(memcached: str) -> Any:
    """The one in Memcached."""
    return result_backends_of_dramatiq.MemcachedBackend(servers=[memcached], binary=True)
