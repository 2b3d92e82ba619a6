"""``3ox up``, ``down``, ``worker``, ``config``, ``doctor``: real processes in a new workspace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.broker.vitals import read_vitals
from ops.processes import descendants, find_marked, pid_alive, wait_ended
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from ops.store.embedded import EmbeddedValkey
from ops.supervision.state_file import INSTANCE_MARK, SupervisorState, read_state, running_pid
from ops.workspace import Workspace
from tests.support import clean_environ, eventually, run_3ox, threeox


class Bridge:
    """A bridge with an embedded store, brought up by ``3ox up``."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.environ = clean_environ({"BRIDGE_HOME": str(home), "BRIDGE_WORKERS": "1", **environ})
        self.workspace = Workspace(home)
        self.instances: set[str] = set()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``3ox`` against it."""
        ran = run_3ox(*arguments, environ=self.environ, timeout_s=60)
        state = read_state(self.workspace)
        if state is not None:
            self.instances.add(state.instance)
        return ran

    def state(self) -> SupervisorState:
        """Return the supervisor's state."""
        state = read_state(self.workspace)
        assert state is not None
        return state

    def pid(self, name: str) -> int | None:
        """Return the process id of a program once it is ready."""
        program = next(program for program in self.state().programs if program.name == name)
        return program.pid if program.ready else None

    def loaded(self) -> LoadedSettings:
        """Return its settings."""
        return load_settings(environ=self.environ)

    def workers(self) -> int:
        """Count the registered workers."""
        return int(Store.open(self.loaded()).call("ZCARD", "3ox:workers"))

    def left(self) -> list[int]:
        """Return the processes that are left of all its runs."""
        return [pid for instance in self.instances for pid in find_marked(INSTANCE_MARK, instance)]


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge that is not started yet, in a new workspace; stopped after the test."""
    made = Bridge(tmp_path / "home")
    yield made
    assert made.run("down").returncode == 0
    assert made.left() == []


def test_up_from_a_new_workspace_and_down(bridge: Bridge) -> None:
    """It is ready when it reports so, runs a job, logs JSON lines, and leaves nothing behind."""
    up = bridge.run("up", "--detach", "--workers", "2", "--threads", "3")
    assert (up.returncode, up.stderr) == (0, "")
    for hint in (
        str(bridge.workspace.home),
        "3ox.log",
        "valkey.sock",
        "2 x 3 threads",
        "3ox status",
        "3ox down",
    ):
        assert hint in up.stdout
    assert bridge.workers() == 2
    assert {"store", "worker-1", "worker-2"} <= {program.name for program in bridge.state().programs}
    assert all(program.ready for program in bridge.state().programs)
    assert bridge.run("sh", "--", "echo", "hi").stdout == "hi\n"

    again = bridge.run("up")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert f"pid {bridge.state().pid}" in again.stderr

    down = bridge.run("down")
    assert (down.returncode, down.stdout, down.stderr) == (0, "Stopped.\n", "")
    assert bridge.left() == []
    names = {path.name for path in bridge.workspace.run_dir.iterdir()}
    assert names.isdisjoint({"up.pid", "up.json", "valkey.sock", "valkey.conf"})
    lines = [json.loads(line) for line in bridge.workspace.log_file.read_text().splitlines()]
    assert {"up", "worker-1", "worker-2"} <= {line["process"] for line in lines}
    assert not [line for line in lines if line["event"] == "supervisor.swept"]


def test_down_with_nothing_running(bridge: Bridge) -> None:
    """It reports that and exits with 0."""
    down = bridge.run("down")
    assert (down.returncode, down.stdout) == (0, "Nothing is running.\n")


def _workers(workspace: Workspace) -> list[int]:
    """Return the process ids of the workers from their vitals."""
    return [read_vitals(path).pid for path in workspace.run_dir.glob("vitals-*/*")]


def test_killed_store_and_worker_come_back(bridge: Bridge) -> None:
    """SIGKILL of the store loses nothing, SIGKILL of a worker process ends its unit; both are restarted.

    A store that cannot be restarted is named by ``doctor``; a mistake in 3ox.toml does not prevent ``down``.
    """
    assert bridge.run("up", "--detach").returncode == 0
    store, unit = bridge.pid("store"), bridge.pid("worker-1")
    assert store is not None
    assert unit is not None
    Store.open(bridge.loaded()).call("SET", "kept", "yes")
    os.kill(store, signal.SIGKILL)
    eventually(EmbeddedValkey(bridge.loaded()).is_answering, 10)
    assert Store.open(bridge.loaded()).call("GET", "kept") == b"yes"
    assert bridge.pid("worker-1") == unit

    eventually(lambda: bridge.pid("store") not in {None, store})
    (worker,) = eventually(lambda: set(_workers(bridge.workspace)) & set(descendants(unit)))
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: bridge.pid("worker-1") not in {None, unit})
    assert bridge.run("sh", "--", "echo", "again").stdout == "again\n"

    _spoil(bridge.workspace)
    store = bridge.pid("store")
    assert store is not None
    os.kill(store, signal.SIGKILL)
    eventually(lambda: _restarts(bridge, "store") > 2, 30)
    ran = bridge.run("doctor")
    assert ran.returncode == 1, ran.stdout
    bad = [line for line in ran.stdout.splitlines() if line.startswith("bad   store  ")]
    (line,) = [line for line in bad if "keeps restarting" in line]
    assert "Invalid AOF manifest file format" in line

    bridge.workspace.settings_file.write_text("wokers = 3\n")
    down = bridge.run("down")
    assert (down.returncode, down.stdout) == (0, "Stopped.\n")
    assert "Did you mean 'workers'?" in down.stderr
    bridge.workspace.settings_file.unlink()


def _restarts(bridge: Bridge, name: str) -> int:
    """Return how often a program that has said why was restarted."""
    program = next(program for program in bridge.state().programs if program.name == name)
    return program.restarts if program.said else 0


def _spoil(workspace: Workspace) -> None:
    """Write a journal that no store can load."""
    folder = workspace.store_dir / "appendonlydir"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "appendonly.aof.manifest").write_text("rubbish\n")


def test_killed_supervisor(bridge: Bridge) -> None:
    """After SIGKILL of the supervisor the next ``up`` works at once, with the same data.

    ``down`` stops the programs of a killed supervisor and removes its files.
    """
    assert bridge.run("up", "--detach").returncode == 0
    before = bridge.state()
    Store.open(bridge.loaded()).call("SET", "kept", "yes")
    os.kill(before.pid, signal.SIGKILL)
    assert wait_ended([before.pid], 5)
    up = bridge.run("up", "--detach")
    assert (up.returncode, up.stderr) == (0, "")
    assert Store.open(bridge.loaded()).call("GET", "kept") == b"yes"
    assert not any(pid_alive(program.pid or 0, program.start_time) for program in before.programs)

    os.kill(bridge.state().pid, signal.SIGKILL)
    assert bridge.run("down").returncode == 0
    assert bridge.left() == []
    assert not (bridge.workspace.run_dir / "up.json").exists()


def test_up_in_the_foreground(bridge: Bridge) -> None:
    """It prints its addresses when it is ready; Ctrl-C stops everything, with exit code 0."""
    up = subprocess.Popen(threeox("up"), env=bridge.environ, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stdout.readline() == "The bridge is up.\n"
    assert bridge.workers() == 1
    bridge.instances.add(bridge.state().instance)
    up.send_signal(signal.SIGINT)
    assert "Ctrl-C" in up.stdout.read()
    up.stdout.close()
    assert up.wait(30) == 0
    assert bridge.left() == []
    assert running_pid(bridge.workspace) is None


def test_a_stop_says_what_it_waits_for(bridge: Bridge) -> None:
    """Ctrl-C and ``down`` name the number of running jobs, the limit and what is faster: ``down --now``."""
    with subprocess.Popen(
        threeox("up"), env=bridge.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        next(line for line in up.stdout if "Ctrl-C" in line)
        bridge.instances.add(bridge.state().instance)
        assert bridge.run("sh", "--detach", "--", "sleep", "600").returncode == 0
        eventually(lambda: bridge.run("jobs", "--status", "processing", "--json").stdout.count("sleep") == 1)
        up.send_signal(signal.SIGINT)
        said = up.stderr.readline()
        assert re.match(
            r"3ox: waiting for 1 running job, (30|29|28) s at most; Ctrl-C again stops at once\.", said
        ), said
        down = bridge.run("down", "--now")
        assert (down.returncode, down.stdout) == (0, "Stopped.\n")
        assert up.wait(10) == 0
    assert bridge.run("up", "--detach").returncode == 0
    eventually(lambda: bridge.run("jobs", "--status", "processing", "--json").stdout.count("sleep") == 1)
    waiting = subprocess.Popen(threeox("down"), env=bridge.environ, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert "waiting for 1 running job, " in waiting.stderr.readline()
    assert bridge.run("down", "--now").stdout == "Stopped.\n"
    assert waiting.wait(10) == 0
    waiting.stderr.close()


def test_failed_start_is_reported(bridge: Bridge) -> None:
    """A store that cannot load its data fails the start: error, end of the log, exit code, nothing left."""
    _spoil(bridge.workspace)
    up = bridge.run("up", "--detach")
    assert up.returncode == 1
    assert "3ox: store ended with exit code 1 while starting" in up.stderr
    assert '"event":"program.output","program":"store"' in up.stderr
    assert running_pid(bridge.workspace) is None


def test_external_store_that_is_away(tmp_path: Path) -> None:
    """An external store that does not answer is reported at once, without its password."""
    bridge = Bridge(tmp_path, BRIDGE_REDIS_URL=f"unix://:hunter2@{tmp_path}/none.sock")
    up = bridge.run("up", "--detach")
    assert up.returncode == 3
    assert "none.sock" in up.stderr
    assert "hunter2" not in up.stderr
    assert up.stderr.count("\n") == 1


def test_external_store(environ: dict[str, str], workspace: Workspace) -> None:
    """With an external store, ``up`` starts no store, and ``down`` does not stop it."""
    up = run_3ox("up", "--detach", "--workers", "1", environ=environ, timeout_s=60)
    assert (up.returncode, up.stderr) == (0, "")
    state = read_state(workspace)
    assert state is not None
    names = {program.name for program in state.programs}
    assert "worker-1" in names
    assert "store" not in names
    assert run_3ox("down", environ=environ, timeout_s=60).returncode == 0
    assert find_marked(INSTANCE_MARK, state.instance) == []
    assert Store.open(load_settings(environ=environ)).call("PING") == b"PONG"


def test_worker(environ: dict[str, str], loaded: LoadedSettings) -> None:
    """A worker in the foreground registers itself, logs, and shuts down on SIGTERM."""
    worker = subprocess.Popen(
        threeox("worker", "--threads", "2"), env=environ, stderr=subprocess.PIPE, text=True
    )
    store, key = Store.open(loaded), f"{loaded.settings.key_prefix}workers"
    eventually(lambda: store.call("ZCARD", key) == 1, 20)
    worker_id = store.call("ZRANGE", key, 0, -1)[0].decode()
    beat = f"{loaded.settings.key_prefix}worker:{worker_id}:heartbeat"
    eventually(lambda: store.call("HGET", beat, "threads") == b"2")
    assert worker.stderr is not None
    assert "the worker is ready" in worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    worker.stderr.close()
    assert store.call("ZCARD", key) == 0
    text = loaded.workspace.log_file.read_text()
    assert "dramatiq.MainProcess" in text
    processes = {json.loads(line)["process"] for line in text.splitlines()}
    assert processes == {f"worker-{worker.pid}", "watchdog"}


def test_config(environ: dict[str, str], workspace: Workspace) -> None:
    """Every setting is printed with value, source and help, as TOML and as JSON."""
    import tomllib

    workspace.settings_file.write_text(
        "threads = 5\n[projects.demo]\npath = '.'\ncommand = ['x', '{task}']\n[rest]\nburst = 7\n"
    )
    environ.update(BRIDGE_API_TOKEN="verysecret", OPENAI_API_KEY="alsosecret", OLLAMA_HOST="box:11434")
    shown = run_3ox("config", environ=environ)
    assert (shown.returncode, shown.stderr) == (0, "")
    parsed = tomllib.loads(shown.stdout)
    assert parsed["threads"] == 5
    assert parsed["projects"]["demo"]["command"] == ["x", "{task}"]
    assert "threads = 5  # 3ox.toml" in shown.stdout
    assert parsed["rest"]["burst"] == 7
    assert "verysecret" not in shown.stdout
    assert "alsosecret" not in shown.stdout
    assert '# OLLAMA_HOST = "box:11434"  # environment' in shown.stdout
    document = json.loads(run_3ox("config", "--json", environ=environ).stdout)
    rows = {row["name"]: row for row in document["settings"]}
    assert rows["threads"] == {
        "name": "threads",
        "value": 5,
        "source": "3ox.toml",
        "help": "Number of jobs that one worker process runs at the same time.",
    }
    assert rows["redis_url"]["source"] == "BRIDGE_REDIS_URL"
    assert {name.partition(".")[0] for name in rows} == set(parsed)
    assert (rows["rest.burst"]["value"], rows["rest.burst"]["source"]) == (7, "3ox.toml")
    assert rows["rest.burst"]["help"] == "Requests above the rate that are allowed in a burst."
    assert rows["rest.rate_per_s"]["source"] == "default"
    variables = {row["name"]: (row["value"], row["source"]) for row in document["variables"]}
    assert variables["OPENAI_API_KEY"] == ("********", "environment")
    assert variables["ANTHROPIC_BASE_URL"] == ("", "default")


@pytest.mark.parametrize("command", [("config",), ("up", "--detach"), ("worker",)])
def test_misspelt_setting(environ: dict[str, str], workspace: Workspace, command: tuple[str, ...]) -> None:
    """An unknown key makes every command exit with one line that names the nearest known key."""
    workspace.settings_file.write_text("wokers = 3\n")
    ran = run_3ox(*command, environ=environ)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "Did you mean 'workers'?" in ran.stderr


def test_doctor(environ: dict[str, str], workspace: Workspace) -> None:
    """A working installation passes; what is missing but not needed is a note."""
    ran = run_3ox("doctor", "--json", environ=environ)
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["healthy"]) == (0, True)
    found = {check["name"]: check["verdict"] for check in report["checks"]}
    assert (
        found["store"] == found["log"] == found["workspace"] == found["settings"] == found["python"] == "ok"
    )
    assert found["workers"] == found["bridge"] == "note"
    assert "offline model" in found
    assert all(check["remedy"] for check in report["checks"] if check["verdict"] == "bad")
    assert run_3ox("doctor", environ=environ).stdout.count("\n") == len(report["checks"])
    assert workspace.home.exists()


@pytest.mark.parametrize(
    ("toml", "name", "remedy"),
    [
        ("workers = 'x'", "settings", "Correct the value"),
        ("[projects.p]\npath = 'nowhere'\ncommand = ['sh']", "project p", "projects.p"),
        ("[projects.p]\npath = '.'\ncommand = ['no-such-program']", "project p", "Install it"),
        ("[ask.openai]\nbase_url = 'ftp://h/v1'", "provider openai", "base URL"),
        ("[ask.bedrock]\nregion = 'eu-central-1'", "provider bedrock", "cmd-bridge[bedrock]"),
    ],
)
def test_doctor_finds(
    environ: dict[str, str], workspace: Workspace, toml: str, name: str, remedy: str
) -> None:
    """Each problem is one line with a remedy, and the exit code is 1."""
    workspace.settings_file.write_text(toml)
    ran = run_3ox("doctor", "--json", environ=environ)
    assert ran.returncode == 1
    check = next(check for check in json.loads(ran.stdout)["checks"] if check["name"] == name)
    assert check["verdict"] == "bad"
    assert remedy in check["remedy"]


def test_doctor_without_a_store(environ: dict[str, str]) -> None:
    """An external store that is unavailable is bad; an embedded one that is not running is a note."""
    environ["BRIDGE_REDIS_URL"] = "redis://127.0.0.1:1"
    assert run_3ox("doctor", environ=environ).returncode == 1
    del environ["BRIDGE_REDIS_URL"]
    ran = run_3ox("doctor", environ=environ)
    assert ran.returncode == 0
    assert "Start it with '3ox up'" in ran.stdout
