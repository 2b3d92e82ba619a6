"""The scripts under a prefix of the test's own, on the shared real store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.settings.load import load_settings
from tests.middleware.driver import Driver
from tests.support import RunningValkey


@pytest.fixture
def driver(valkey: str, prefix: str) -> Iterator[Driver]:
    """The scripts with their default limits."""
    made = Driver(valkey, prefix)
    yield made
    made.close()


@pytest.fixture
def own_store() -> Iterator[RunningValkey]:
    """A store of the test's own, which it may stop and freeze."""
    folder = Path(tempfile.mkdtemp(prefix="3ox-test-"))
    server = RunningValkey(load_settings(folder, environ={}, overrides={"store_fsync": "no"}))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
