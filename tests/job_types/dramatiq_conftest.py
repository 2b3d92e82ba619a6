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
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.errors import QueueJoinTimeout
from dramatiq.rate_limits import backends as rate_backends
from dramatiq.results import backends as result_backends_of_dramatiq

from actors.registry import make_broker
from middleware.broker.broker import BridgeBroker
from middleware.job.states import State
from ops.settings.load import load_settings

logging.basicConfig(level=logging.INFO)


_START_S = 5.0
MEMCACHED = str(shutil.which("memcached"))
#: Backends of rate limiters and results. Memcached needs its program and the package pylibmc.
BACKENDS = ["redis", "stub"]
if shutil.which("memcached") is not None and importlib.util.find_spec("pylibmc") is not None:
    BACKENDS.append("memcached")

_REDIS = "of Dramatiq's broker for Redis"
_NO_LOSS = "a job that a stopping worker interrupts goes back to its queue, whatever its max_retries"
#: Tests that cannot pass here, with the reason. Every other test passes.
DIFFERENT = {
    "test_shutdown_notifications_are_received": _NO_LOSS,
    "test_shutdown_notifications_dont_notify_completed_threads": _NO_LOSS,
    "test_messages_belonging_to_missing_actors_are_rejected": "a message of an unknown actor is refused when "
    "it is enqueued",
    "test_groups_with_completion_callbacks_fail_unless_group_callbacks_is_set_up": "they are always set up",
    "test_messageproxy_representation": "the text of a job, as logs have it, is its type and id: the "
    "arguments may hold secrets",
    "test_messages_can_fail_to_get_results_if_there_is_no_backend": "there always is one",
    "test_actor_warning_when_returns_result_and_no_results_middleware_present": "results are always stored",
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


#: Files beside the 235 tests of the first selection, with Memcached's backends.
ADDED_LATER = ("test_canteen.py", "test_common.py", "test_redis.py")
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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what does not pass, by reason, and the counts."""
    stats = terminalreporter.stats
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for report in stats.get("xfailed", []):
        reasons[report.wasxfail.removeprefix("reason: ").removeprefix("[NOTRUN] ")].append(
            report.nodeid.rpartition("::")[2]
        )
    for report in stats.get("skipped", []):
        reasons[f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"].append(
            report.nodeid.rpartition("::")[2]
        )
    terminalreporter.section("Not passed, by reason")
    for reason, names in sorted(reasons.items()):
        terminalreporter.line(f"{reason}:")
        for name in names:
            terminalreporter.line(f"    {name}")
    terminalreporter.section("Counts")
    terminalreporter.line(_counts("all", stats, leave_out=()))
    terminalreporter.line(_counts("without the files added later", stats, leave_out=ADDED_LATER))


def _counts(title: str, stats: dict[str, list[Any]], *, leave_out: tuple[str, ...]) -> str:
    outcomes = {
        "passed": ("passed", "xpassed"),
        "expected to fail": ("xfailed",),
        "skipped": ("skipped",),
        "failed": ("failed", "error"),
    }
    found = {
        title: len(
            {
                report.nodeid
                for outcome in of
                for report in stats.get(outcome, [])
                if Path(report.nodeid.partition("::")[0]).name not in leave_out
            }
        )
        for title, of in outcomes.items()
    }
    counted = ", ".join(f"{count} {outcome}" for outcome, count in found.items())
    return f"{sum(found.values())} tests ({title}): {counted}"


class DeadLetters(dramatiq.Middleware):
    """Keeps failed messages with what was raised, as the stub broker does.

    Attributes:
        by_queue: Failed messages by queue.
        errors: What each of them raised, by queue: Dramatiq removes it from the message later.
    """

    def __init__(self) -> None:
        self.by_queue: defaultdict[str, list[MessageProxy]] = defaultdict(list)
        self.errors: defaultdict[str, list[BaseException | None]] = defaultdict(list)

    def before_nack(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        """Keep it."""
        del broker
        self.by_queue[message.queue_name].append(message)
        self.errors[message.queue_name].append(message._exception)

    def clear(self) -> None:
        """Forget all."""
        self.by_queue.clear()
        self.errors.clear()


class StoredQueue:
    """A queue in the store, with the part of ``queue.Queue`` that the suite uses of the stub broker's queues.

    Args:
        broker: Our broker.
        name: Name of the queue.
    """

    def __init__(self, broker: BridgeBroker, name: str) -> None:
        self._broker = broker
        self._name = name

    def put(self, data: bytes) -> None:
        """Enqueue an encoded message."""
        self._broker.enqueue(dramatiq.Message.decode(data))

    def get(self, timeout: float) -> bytes:
        """Fetch a message as a worker does, and return it encoded; it counts as running from then on."""
        self._broker.slots.open(1)  # the thread that takes it
        consumer = self._broker.consume(self._name, timeout=int(timeout * 1000))
        message = next(consumer)
        consumer.close()
        if message is None:
            raise Empty
        return bytes(message.encode())

    def qsize(self) -> int:
        """Return how many messages wait."""
        key = self._broker.keys.state(State.QUEUED, self._name)
        return int(self._broker.scripts.store.call("ZCARD", key))

    @property
    def unfinished_tasks(self) -> int:
        """How many messages wait, at least 1 if one runs or is delayed."""
        try:
            BridgeBroker.join(self._broker, self._name, timeout=0)
        except QueueJoinTimeout:
            return max(1, self.qsize())
        return 0


class StoredQueues(dict[str, Any]):
    """The declared queues."""

    def __init__(self, broker: BridgeBroker) -> None:
        super().__init__()
        self._broker = broker

    def __setitem__(self, name: str, value: None) -> None:
        """Add a queue."""
        del value
        super().__setitem__(name, StoredQueue(self._broker, name))


def as_stub(broker: BridgeBroker) -> BridgeBroker:
    """Give a broker what the suite uses of the stub broker beside Dramatiq's interface."""
    letters = DeadLetters()
    broker.add_middleware(letters)

    class Stub(type(broker)):  # type: ignore[misc]
        """Our broker, with the stub broker's ``join`` and ``dead_letters``."""

        fail_fast_default = True
        dead_letters_by_queue = letters.by_queue

        @property
        def dead_letters(self) -> list[MessageProxy]:
            """Failed messages of all queues."""
            return [message for found in letters.by_queue.values() for message in found]

        def flush_all(self) -> None:
            """Cancel what waits; forget what failed."""
            super().flush_all()
            letters.clear()

        def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
            """Wait for the queue; raise what a message raised."""
            super().join(queue_name, timeout=timeout)
            if self.fail_fast_default if fail_fast is None else fail_fast:
                for error in letters.errors[queue_name]:
                    raise (error or Exception("Message failed with unknown error")) from None

    broker.__class__ = Stub
    broker.queues = StoredQueues(broker)
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
