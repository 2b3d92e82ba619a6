"""A user's ``actors.py``, ``middleware/``, ``ops.py`` and ``ingress/`` do no harm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cmd_bridge import own_argv
from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.support import ROOT, bridge_environ, eventually
from tests.workers import Worker, sweep

BIN = Path(sys.executable).parent
#: A module that must not be imported: it leaves a file and ends the process.
FOREIGN = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
raise SystemExit(f"{__file__} was imported")
"""


@pytest.fixture
def user_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory with modules of all our names; fails if one of them was imported."""
    folder = tmp_path / "user"
    for name in ("actors.py", "ops.py", "middleware/__init__.py", "ingress/__init__.py"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FOREIGN)
    yield folder
    assert list(folder.rglob("imported")) == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace."""
    made = tmp_path / "home"
    made.mkdir()
    return made


def run(*argv: str, cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory."""
    return subprocess.run(
        [str(BIN / argv[0]), *argv[1:]],
        cwd=cwd,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_3ox_up_starts_ours(user_dir: Path, home: Path) -> None:
    """All programs start and a job runs, with such a directory as working directory and in PYTHONPATH."""
    environ = {**bridge_environ(home, "", extra={"BRIDGE_WORKERS": "1"}), "PYTHONPATH": str(user_dir)}
    try:
        started = run("3ox", "up", "--detach", cwd=user_dir, environ=environ)
        assert started.returncode == 0, started.stdout + started.stderr
        ran = run("3ox", "sh", "--", "echo", "hello", cwd=user_dir, environ=environ)
        assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran.stderr

        def daemons() -> list[str]:
            shown = run("3ox", "status", "--json", cwd=user_dir, environ=environ)
            return [daemon["name"] for daemon in json.loads(shown.stdout)["daemons"] if daemon["healthy"]]

        eventually(lambda: {"clock", "rest", "station"} <= set(daemons()), 20.0)
    finally:
        stopped = run("3ox", "down", cwd=user_dir, environ=environ)
        sweep(environ)
    assert stopped.returncode == 0, stopped.stderr


@pytest.mark.parametrize("start", [(), ("--use-spawn",)], ids=["fork", "spawn"])
def test_a_worker_imports_ours(start: tuple[str, ...], user_dir: Path, home: Path, valkey: str) -> None:
    """So does the process that Dramatiq's master forks or spawns, and the watchdog that it starts."""
    environ = {**bridge_environ(home, valkey), "PYTHONPATH": str(user_dir)}
    bridge = Bridge(load_settings(environ=environ))
    argv = own_argv("-m", "dramatiq", "actors", "-p", "1", "-t", "1", *start)
    with (home / "worker.out").open("wb") as output:
        process = subprocess.Popen(argv, cwd=user_dir, env=environ, stdout=output, stderr=output)
    try:
        Worker(process, bridge)
        log = bridge.loaded.workspace.log_file
        ran = run("3ox", "sh", "--", "echo", "hello", cwd=user_dir, environ=environ)
        assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran.stderr
        eventually(lambda: '"process":"watchdog"' in log.read_text(), 20.0)
    finally:
        process.terminate()
        process.wait(20.0)
        sweep(environ)


def test_dramatiq_with_a_foreign_package_says_so(home: Path, valkey: str) -> None:
    """``dramatiq actors`` in a directory with a package ``middleware`` ends with one line that names it."""
    folder = home / "project"
    (folder / "middleware").mkdir(parents=True)
    (folder / "middleware" / "__init__.py").write_text(FOREIGN)
    ended = run("dramatiq", "actors", "-p", "1", cwd=folder, environ=_unpinned(home, valkey))
    assert ended.returncode != 0
    (line,) = re.findall("^ImportError: .*$", ended.stderr, re.MULTILINE)
    assert line.startswith(f"ImportError: {folder}/middleware hides the package 'middleware' of CMD.BRIDGE: ")
    assert line.endswith("or start the workers with '3ox worker'.")


def test_dramatiq_with_foreign_actors_says_so(home: Path, valkey: str) -> None:
    """A worker of somebody else's ``actors`` that uses our ``dispatch`` logs one line, and works."""
    folder = home / "project"
    folder.mkdir()
    (folder / "actors.py").write_text(
        "import dramatiq\n"
        "from dramatiq.brokers.stub import StubBroker\n"
        "from ingress.dispatch import dispatch\n"
        "dramatiq.set_broker(StubBroker())\n"
    )
    output = home / "dramatiq.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / "dramatiq"), "actors", "-p", "1", "-t", "1"],
            cwd=folder,
            env=_unpinned(home, valkey),
            stdout=file,
            stderr=file,
        )
    try:
        eventually(lambda: "Worker process is ready for action" in output.read_text(), 30.0)
    finally:
        process.terminate()
        process.wait(20.0)
    lines = [line for line in output.read_text().splitlines() if "not the actors of CMD.BRIDGE" in line]
    assert len(lines) == 1, output.read_text()
    assert f"This worker runs {folder}/actors.py" in lines[0]


def _unpinned(home: Path, valkey: str) -> dict[str, str]:
    """Return the environment of a user who has installed the bridge: PYTHONPATH does not name it."""
    environ = bridge_environ(home, valkey)
    del environ["PYTHONPATH"]
    return environ


def test_no_program_of_ours_starts_by_the_name_of_a_module() -> None:
    """``python -m`` would look in the working directory and in PYTHONPATH first; ``own_argv`` does not."""
    for layer in ("ops", "middleware", "actors", "ingress"):
        for file in (ROOT / layer).rglob("*.py"):
            assert not re.search(r"sys\.executable,\s*\"-[mc]\"", file.read_text()), file


def test_a_foreign_module_that_is_imported_already_is_an_error(tmp_path: Path) -> None:
    """``pin`` does not work beside it, and says so."""
    (tmp_path / "ops.py").write_text("")
    code = "import ops, cmd_bridge; cmd_bridge.pin()"
    ended = run("python", "-c", code, cwd=tmp_path, environ={**os.environ, "PYTHONPATH": ""})
    assert ended.returncode == 1
    assert f"{tmp_path}/ops.py hides the package 'ops' of CMD.BRIDGE" in ended.stderr
