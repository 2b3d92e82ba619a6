"""``3ox demo`` uses every interface, ends by itself, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.processes import find_marked
from ops.store.client import Store
from ops.workspace import Workspace
from tests.cli.support import Cli
from tests.support import clean_environ, eventually

DOORS = ("station", "rest", "webhook", "telegram", "shell", "cli", "clock")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Parent of the demo's workspace."""
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


@pytest.fixture
def embedded(tmp_path: Path, temporary: Path) -> Iterator[Cli]:
    """A user without settings, whose demo uses the embedded store."""
    cli = Cli(clean_environ({"BRIDGE_HOME": str(tmp_path / "home"), "TMPDIR": str(temporary)}))
    yield cli
    cli.end()


def workspaces_of(said: str) -> list[str]:
    """Return the workspaces that a demo has named."""
    return re.findall(r"is up in (\S+)", said)


def await_up(process: subprocess.Popen[str]) -> str:
    """Read the output of a demo until its bridge is up; return its workspace."""
    assert process.stdout is not None
    for line in process.stdout:
        if named := workspaces_of(line):
            return named[0]
    raise AssertionError(process.communicate()[1])


def test_a_job_goes_through_every_interface(
    environ: dict[str, str], valkey: str, temporary: Path, tmp_path: Path
) -> None:
    """Each has its receipt, within a minute, on the store of the settings; nothing is left behind."""
    user = {**environ, "TMPDIR": str(temporary), "BRIDGE_HOME": str(tmp_path / "nobody")}
    began = time.monotonic()
    done = Cli(user)("demo")
    assert time.monotonic() - began < 60
    assert done.code == 0, done.err + done.out
    for source in DOORS:
        assert re.search(rf"completed after \S+; source {source}, trust", done.out), source
    assert (
        len(re.findall(r"receipt r-\w{20}: queued > processing > completed; input [0-9a-f]{12}", done.out))
        == 7
    )
    assert "WORKDESK/minutes.md" in done.out
    assert "job.completed" in done.out
    assert "3ox verify\n    OK: " in done.out
    [home] = workspaces_of(done.out)
    assert find_marked("BRIDGE_HOME", home) == []
    assert list(temporary.iterdir()) == []
    assert not Workspace(Path(home)).store_socket.parent.exists()
    assert not (tmp_path / "nobody").exists()
    store = Store(valkey)
    assert store.call("SCAN", 0, "MATCH", "demo-*", "COUNT", 1_000_000)[1] == []
    store.close()


def test_ctrl_c_ends_it_and_leaves_nothing(embedded: Cli, temporary: Path) -> None:
    """During the tour: the bridge and its store are stopped, the workspace is removed."""
    process = embedded.start("demo")
    home = await_up(process)
    assert find_marked("BRIDGE_HOME", home) != []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40.0)
    assert process.returncode == 130
    assert find_marked("BRIDGE_HOME", home) == []
    assert list(temporary.iterdir()) == []
    assert not Workspace(Path(home)).store_socket.parent.exists()


def test_a_killed_demo_takes_its_bridge_along(embedded: Cli) -> None:
    """Its processes end too; only the workspace stays."""
    process = embedded.start("demo")
    home = await_up(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10.0)
    eventually(lambda: not find_marked("BRIDGE_HOME", home), 30.0)
