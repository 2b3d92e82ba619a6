"""Bridges for these tests: a shared one with a worker, and one per test that breaks things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect
from ops.settings.load import LoadedSettings, load_settings
from tests.support import bridge_environ
from tests.workers import Worker, running_worker, sweep

SETTINGS = """
kill_grace_s = 0.5
progress_interval_s = 0.02

[types."shell.cmd"]
backoff_min_s = 0.02
backoff_max_s = 0.05
"""


@pytest.fixture(scope="session")
def shared_environ(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the shared bridge."""
    environ = bridge_environ(tmp_path_factory.mktemp("shared"), valkey, SETTINGS)
    load_settings(environ=environ).workspace.create()
    yield environ
    sweep(environ)


@pytest.fixture(scope="session")
def shared_worker(shared_environ: dict[str, str]) -> Iterator[Worker]:
    """A worker with four threads; no test stops it."""
    with running_worker(Bridge(load_settings(environ=shared_environ)), shared_environ) as worker:
        yield worker


@pytest.fixture
def bridge(shared_environ: dict[str, str], shared_worker: Worker) -> Bridge:
    """The shared bridge, with its worker; the functions of ``ingress.dispatch`` use it."""
    assert shared_worker.process.poll() is None
    return connect(load_settings(environ=shared_environ))


@pytest.fixture
def own_environ(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment of the test's own with a short lease; its processes are stopped afterwards."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    yield {**environ, "BRIDGE_LEASE_S": "2", "BRIDGE_HEARTBEAT_S": "0.5"}
    sweep(environ)


@pytest.fixture
def own_loaded(own_environ: dict[str, str]) -> LoadedSettings:
    """The settings of the test's own environment."""
    return load_settings(environ=own_environ)


@pytest.fixture
def own(own_loaded: LoadedSettings) -> Bridge:
    """A bridge of the test's own, with no worker yet; the functions of ``ingress.dispatch`` use it."""
    return connect(own_loaded)
