"""Fixtures of every test: an own workspace, an own key prefix, one real store for all."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.settings import LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.support import RunningValkey, clean_environ


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
    return f"t{uuid.uuid4().hex[:12]}:"


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
