"""A station with a worker that tests share, and separate ones for tests that break things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect
from ops.settings.load import LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.station.running import SETTINGS, RunningStation
from tests.support import RunningValkey, bridge_environ
from tests.workers import running_worker, sweep


@pytest.fixture(scope="module")
def shared_environ(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the shared station."""
    environ = bridge_environ(tmp_path_factory.mktemp("station"), valkey, SETTINGS)
    load_settings(environ=environ).workspace.create()
    yield environ
    sweep(environ)


@pytest.fixture(scope="module")
def station(shared_environ: dict[str, str]) -> Iterator[RunningStation]:
    """A station and a worker, shared by the tests of a module."""
    bridge = Bridge(load_settings(environ=shared_environ))
    with running_worker(bridge, shared_environ), RunningStation(bridge, shared_environ) as running:
        yield running


@pytest.fixture
def own_environ(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment of one test; its processes are stopped afterwards."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    yield environ
    sweep(environ)


@pytest.fixture
def own(own_environ: dict[str, str]) -> Bridge:
    """A bridge of one test, without station and worker."""
    return connect(load_settings(environ=own_environ))


@pytest.fixture
def own_workspace(own: Bridge) -> Workspace:
    """The workspace of that bridge."""
    own.loaded.workspace.create()
    return own.loaded.workspace


@pytest.fixture
def mortal(environ: dict[str, str]) -> Iterator[tuple[RunningValkey, dict[str, str]]]:
    """A store that a test can kill, and the environment that names it."""
    del environ["BRIDGE_REDIS_URL"]
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    loaded: LoadedSettings = load_settings(environ=environ)
    loaded.workspace.create()
    server = RunningValkey(loaded)
    server.start()
    yield server, environ
    sweep(environ)
    server.stop()
