"""Fixtures of every test (a workspace, a key prefix, one real store for all), and which tests run where."""

from __future__ import annotations

import gc
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.settings.load import LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.selection import marks_of, portion_of, seconds_of
from tests.support import RunningValkey, clean_environ, new_prefix

# Also where Python is told to write no bytecode (many containers do): rewriting the assertions of all tests
# takes each process of `pytest -n` eight seconds, reading what another has written one.
sys.dont_write_bytecode = False
# Hardly anything that is imported or collected becomes garbage; looking for it takes a fifth of the time.
gc.disable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--serial``: tests that need an idle machine are not to run beside others."""
    parser.addoption(
        "--serial",
        choices=("with", "without", "only"),
        default="with",
        help="tests that need an idle machine: with the others, without them, or only them",
    )


def pytest_configure() -> None:
    """Handle the signals of a hang-up and Ctrl-C, also under nohup or in the background of a script.

    There they are ignored, and what tests start would inherit that; a handler is not inherited.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of each file, select by ``--serial``, and order the portions for ``pytest -n``."""
    for item in items:
        for name in marks_of(_file_of(item)):
            item.add_marker(name)
    wanted = config.getoption("--serial")
    left_out = [item for item in items if wanted != "with" and _is_serial(item) != (wanted == "only")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        items.sort(key=lambda item: -seconds_of(portion_of(_file_of(item))))


def pytest_collection_finish() -> None:
    """Look for garbage from now on, among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole portions, the longest first, unless ``--dist`` names another way."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Portions(LoadScopeScheduling):  # type: ignore[misc]
        """Gives all tests of a portion to one process, which starts their bridge once."""

        def _split_scope(self, nodeid: str) -> str:
            return portion_of(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return Portions(config, log)


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _is_serial(item: pytest.Item) -> bool:
    return item.get_closest_marker("serial") is not None


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
