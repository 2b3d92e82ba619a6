"""A bridge for the tests of the command line: one workspace, one prefix, one real worker process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import bridge_status, connect
from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.support import bridge_environ, eventually

TOOL = """
import os, sys, time
task = sys.argv[1]
if task == "fail":
    print("about to fail"); sys.exit("no luck")
def pass_gate(name):
    while not os.path.exists(name):
        time.sleep(0.01)
if task.startswith("steps "):
    for percent in (20, 60):
        print(f"::progress {percent} part {percent}", flush=True)
        pass_gate(f"{task[6:]}.{percent}")
if task.startswith("wait for "):
    print("waiting", flush=True)
    pass_gate(task[9:])
print(f"done: {task}")
"""
ANSWERS = """
import sys
prompt = sys.stdin.read().strip()
if prompt == "fail":
    sys.exit("no answer today")
for word in ("You", "asked:", prompt):
    print(word, end=" ", flush=True)
"""
SETTINGS = """
[projects.demo]
path = "WORKDESK"
command = [{python}, "tool.py", "{{task}}"]

[projects.website]
path = "WORKDESK"
priority = 3
command = [{python}, "tool.py", "{{task}}"]

[ask.command]
argv = [{python}, {answers}]

[types.ask]
max_retries = 0
"""


def settle_workspace(home: Path) -> None:
    """Write the settings and tools of the two projects and of ``ask``."""
    desk = home / "WORKDESK"
    desk.mkdir(parents=True, exist_ok=True)
    (desk / "tool.py").write_text(TOOL)
    (desk / "answers.py").write_text(ANSWERS)
    python, answers = f'"{sys.executable}"', f'"{desk / "answers.py"}"'
    (home / "3ox.toml").write_text(SETTINGS.format(python=python, answers=answers))


@pytest.fixture(scope="session")
def bridge(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line of a bridge with a running worker, shared by all tests of this directory."""
    home = tmp_path_factory.mktemp("bridge")
    settle_workspace(home)
    environ = bridge_environ(home, valkey)
    log = (home / "worker.out").open("wb")
    worker = subprocess.Popen(
        [sys.executable, "-m", "dramatiq", "actors", "-p", "1", "-t", "4"],
        env=environ,
        cwd=home,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    connect(load_settings(environ=environ))
    try:
        eventually(lambda: bridge_status()["workers"], 30.0)
        cli = Cli(environ)
        yield cli
        cli.end()
    finally:
        worker.terminate()
        try:
            worker.wait(20.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait(10.0)
        log.close()


@pytest.fixture
def quiet(environ: dict[str, str]) -> Iterator[Cli]:
    """The command line of a bridge without a worker: submitted jobs stay queued."""
    settle_workspace(Path(environ["BRIDGE_HOME"]))
    cli = Cli(environ)
    yield cli
    cli.end()


@pytest.fixture
def storeless(environ: dict[str, str]) -> Iterator[Cli]:
    """The command line of a bridge whose store does not exist."""
    settle_workspace(Path(environ["BRIDGE_HOME"]))
    missing = Path(environ["BRIDGE_HOME"]) / "none.sock"
    assert not os.path.lexists(missing)
    cli = Cli({**environ, "BRIDGE_REDIS_URL": f"unix://{missing}"})
    yield cli
    cli.end()
