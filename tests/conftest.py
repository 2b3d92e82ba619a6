"""Fixtures of every test: an own workspace, an own key prefix, one real store for all."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.settings.load import LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.support import RunningValkey, clean_environ, new_prefix


def pytest_configure() -> None:
    """Let what tests start hear a hang-up and Ctrl-C, also under nohup or in the background of a script.

    There they are ignored, and that is inherited; a handler is not.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A new workspace with all its directories."""
    made = Workspace(tmp_path / "home")
    made.create()
    return made


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a real store that all tests share, each under a prefix of its own; never flush it."""
    folder = Path(tempfile.mkdtemp(prefix="3ox-test-"))
    server = RunningValkey(load_settings(folder, environ={}, overrides={"store_fsync": "no"}))
    server.start()
    yield server.url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test has."""
    return new_prefix()


@pytest.fixture
def environ(workspace: Workspace, valkey: str, prefix: str) -> dict[str, str]:
    """The environment of a process with this test's workspace and prefix, and the shared store."""
    return clean_environ(
        {"BRIDGE_HOME": str(workspace.home), "BRIDGE_REDIS_URL": valkey, "BRIDGE_KEY_PREFIX": prefix},
    )


@pytest.fixture
def loaded(environ: dict[str, str]) -> LoadedSettings:
    """The settings that a process with ``environ`` sees."""
    return load_settings(environ=environ)
