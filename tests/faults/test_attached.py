"""Attached commands (``3ox sh``) through faults: broken connections, a killed worker; and their memory."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect
from middleware.job.states import State
from ops.settings.load import load_settings
from tests.bench.transfer import measure
from tests.support import RunningValkey, bridge_environ, eventually, threeox
from tests.workers import Worker, running_worker

_MB = 1_000_000
#: Small leases, so that the end of a worker is noticed soon.
SETTINGS = "lease_s = 2.0\nheartbeat_s = 0.5\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    """A store of these tests, whose connections they break."""
    made = RunningValkey(load_settings(tmp_path_factory.mktemp("store"), environ={}))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def environ(server: RunningValkey, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a bridge."""
    return bridge_environ(tmp_path_factory.mktemp("home"), server.url, SETTINGS)


@pytest.fixture
def bridge(environ: dict[str, str]) -> Bridge:
    """The bridge."""
    return connect(load_settings(environ=environ))


@pytest.fixture
def worker(bridge: Bridge, environ: dict[str, str]) -> Iterator[Worker]:
    """A worker, which a test may kill."""
    with running_worker(bridge, environ) as running:
        yield running


def test_nothing_is_lost_when_connections_break(
    bridge: Bridge, worker: Worker, environ: dict[str, str]
) -> None:
    """All subscriptions break several times during a transfer; every byte arrives, once and in order."""
    assert worker.worker_id
    data = secrets.token_bytes(24 * _MB)
    caller = subprocess.Popen(
        threeox("sh", "--", "cat"), env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    stdin, received = caller.stdin, b""

    def send() -> None:
        with stdin:
            stdin.write(data)

    threading.Thread(target=send, daemon=True).start()
    broken = 0
    for _ in range(6):
        received += caller.stdout.read(3 * _MB)
        broken += bridge.store.call("CLIENT", "KILL", "TYPE", "pubsub")
    received += caller.stdout.read()
    caller.stdout.close()
    assert caller.wait(30) == 0
    assert received == data
    assert broken >= 6


def test_a_command_whose_worker_was_killed_is_not_started_again(
    worker: Worker, environ: dict[str, str], bridge: Bridge, tmp_path: Path
) -> None:
    """Its output would come twice, and its input is used up: the caller exits 1 and says why."""
    starts = tmp_path / "starts"
    caller = subprocess.Popen(
        threeox("sh", "--", "sh", "-c", f"echo x >> {starts}; cat; sleep 300"),
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    caller.stdin.write("first line\n")
    caller.stdin.flush()
    assert caller.stdout.readline() == "first line\n"
    worker.kill()
    # Dramatiq's master ends with its only worker; another one takes over.
    with running_worker(bridge, environ, name="second"):
        _, errors = caller.communicate(timeout=60)
    assert caller.returncode == 1
    assert "not started a second time" in errors
    eventually(lambda: starts.read_text() == "x\n")


def test_a_command_whose_caller_was_killed_while_it_waited_is_not_started(
    environ: dict[str, str], bridge: Bridge, tmp_path: Path
) -> None:
    """No process would read its output: the job is cancelled when a worker takes it."""
    place = tmp_path / "ran"
    caller = subprocess.Popen(threeox("sh", "--", "touch", str(place)), env=environ, stdin=subprocess.DEVNULL)
    queued = bridge.reader.keys.state(State.QUEUED)
    eventually(lambda: bridge.store.call("ZCARD", queued), 20.0)
    job_id = bridge.store.call("ZRANGE", queued, 0, 0)[0].decode()
    caller.kill()
    caller.wait(10)
    with running_worker(bridge, environ, name="third"):
        record = bridge.follower.wait(job_id, timeout_s=30.0)
    assert (record.status, record.reason) == ("cancelled", "its caller is gone")
    assert not place.exists()


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """100 MB in both directions: each process keeps its size, and the store's log takes what is kept only.

    ``python -m tests.bench.transfer 2000`` is the same with 2 GB.
    """
    done = measure(tmp_path, 100 * _MB)
    assert done.equal
    for before, after in zip(done.before, done.after, strict=True):
        assert after - before < 24 * _MB
    assert done.log_bytes < 2 * _MB
