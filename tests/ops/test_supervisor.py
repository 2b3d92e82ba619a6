"""The supervisor: starts in order, restarts what dies, leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.errors import AlreadyRunning
from ops.processes import find_marked, pid_alive, stop_processes
from ops.supervision.state_file import SupervisorState, claim, read_state, running_pid, sweep_leftovers
from ops.workspace import Workspace
from tests.support import clean_environ, eventually
from tests.tools import require_tool

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel lacks it")
IGNORES_TERM = "trap '' TERM; while :; do sleep 60 & wait $!; done"
#: Says that it is ready as soon as it ignores SIGTERM.
STUBBORN = "trap '' TERM; echo > {ready}; while :; do sleep 60 & wait $!; done"


class Supervised:
    """A supervisor over some programs, in a process of its own."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[str] | None = None

    def start(self, *programs: dict[str, Any], **spec: Any) -> None:
        """Start it; do not wait."""
        file = self.workspace.home / "spec.json"
        file.write_text(json.dumps({"programs": programs, **spec}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ops.supervise", str(self.workspace.home), str(file)],
            env=clean_environ({"BRIDGE_JOB_ID": self.mark}),
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Return the next line that it prints: ``ready`` or its error."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end and return the exit code."""
        assert self.process is not None
        code = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def left(self) -> list[int]:
        """Return what still runs of all that it has started, itself included."""
        return find_marked("BRIDGE_JOB_ID", self.mark)

    def state(self) -> SupervisorState:
        """Return its state file."""
        state = read_state(self.workspace)
        assert state is not None
        return state

    def log(self) -> list[dict[str, Any]]:
        """Return the log."""
        return [json.loads(line) for line in self.workspace.log_file.read_text().splitlines()]


@pytest.fixture
def supervised(workspace: Workspace) -> Iterator[Supervised]:
    """A supervisor to be; nothing of it outlives the test."""
    made = Supervised(workspace)
    yield made
    assert stop_processes(made.left, grace_s=0)
    if made.process is not None:
        made.ends()


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    """Describe a program that is a shell script."""
    return {"name": name, "argv": ["sh", "-c", script], "stop_timeout_s": 5.0, **more}


def stubborn(workspace: Workspace, **more: Any) -> dict[str, Any]:
    """Describe a program that ignores SIGTERM from the moment it is ready."""
    ready = workspace.home / "stubborn-ready"
    return shell("stubborn", STUBBORN.format(ready=ready), ready=str(ready), **more)


def test_starts_and_stops_in_order(supervised: Supervised) -> None:
    """A gate is ready before what follows starts, and is stopped after it."""
    order = supervised.workspace.home / "order"
    ready = supervised.workspace.home / "ready"
    store = (
        f"echo store >> {order}; trap 'echo no-store >> {order}; exit' TERM; "
        f"sleep 0.2; echo > {ready}; sleep 60 & wait"
    )
    user = f"echo user >> {order}; trap 'sleep 0.2; echo no-user >> {order}; exit' TERM; sleep 60 & wait"
    supervised.start(shell("store", store, gate=True, ready=str(ready)), shell("user", user))
    assert supervised.says() == "ready"
    eventually(lambda: order.read_text().split() == ["store", "user"])
    supervised.signal(signal.SIGTERM)
    assert supervised.ends() == 0
    assert order.read_text().split() == ["store", "user", "no-user", "no-store"]


def test_nothing_is_left(supervised: Supervised) -> None:
    """Grandchildren that left their session, and programs that ignore SIGTERM, are gone at the end."""
    require_tool("setsid")
    supervised.start(
        shell("parent", f'(setsid sh -c "{IGNORES_TERM}" &) ; setsid sleep 61 & sleep 62 & wait'),
        stubborn(supervised.workspace, stop_timeout_s=0.3),
    )
    assert supervised.says() == "ready"
    eventually(lambda: len(supervised.left()) == 8)
    supervised.signal(signal.SIGINT)
    assert supervised.ends() == 0
    assert supervised.left() == []
    assert list(supervised.workspace.run_dir.iterdir()) == []


def test_a_second_signal_hurries(supervised: Supervised) -> None:
    """A second signal ends the wait for a slow program."""
    supervised.start(stubborn(supervised.workspace, stop_timeout_s=60.0))
    assert supervised.says() == "ready"
    supervised.signal(signal.SIGTERM)
    # A signal that is still pending would swallow the second one.
    eventually(lambda: any(line["event"] == "supervisor.stopping" for line in supervised.log()))
    supervised.signal(signal.SIGTERM)
    assert supervised.ends() == 0
    assert supervised.left() == []


def test_restarts_what_dies(supervised: Supervised) -> None:
    """A program that is killed comes back quickly, with a new process, and the others are left alone."""
    supervised.start(shell("one", "sleep 60 & wait"), shell("other", "sleep 61 & wait"))
    assert supervised.says() == "ready"
    one, other = supervised.state().programs
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: supervised.state().programs[0].pid not in {None, one.pid}, 5)
    now, same = supervised.state().programs
    assert (now.restarts, same) == (1, other)


def test_restart_waits_longer_each_time(supervised: Supervised) -> None:
    """A program that keeps dying is started less and less often, not given up."""
    stamps = supervised.workspace.home / "stamps"
    supervised.start(shell("dies", f"date +%s%N >> {stamps}; exit 3"))
    eventually(lambda: stamps.exists() and len(stamps.read_text().split()) >= 5, 10)
    at_ns = [int(word) for word in stamps.read_text().split()[:5]]
    waits_s = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(at_ns)]
    for wait_s, least_s in zip(waits_s, (0.05, 0.1, 0.2, 0.4), strict=True):
        assert wait_s >= least_s
    ended = [line for line in supervised.log() if line["event"] == "program.ended"]
    assert (ended[0]["program"], ended[0]["exit_code"], ended[0]["restart_in_s"]) == ("dies", 3, 0.05)


def test_vital_process_and_marked_children(supervised: Supervised) -> None:
    """When the process that matters dies, the program is restarted, and its marked strays are gone first."""
    require_tool("setsid")
    ready = supervised.workspace.home / "ready"
    mark = f"{supervised.mark}-w"
    script = (
        f"BRIDGE_WORKER_ID={mark} setsid sh -c 'sleep 62; true' & "
        f"sleep 60 & echo $! {mark} > {ready}; while :; do sleep 1; done"
    )
    supervised.start(shell("unit", script, ready=str(ready)))
    assert supervised.says() == "ready"
    before = supervised.state().programs[0]
    strays = eventually(lambda: found if len(found := find_marked("BRIDGE_WORKER_ID", mark)) == 2 else [])
    vital = next(
        pid for pid in supervised.left() if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0060\x00"
    )
    os.kill(vital, signal.SIGKILL)
    eventually(
        lambda: supervised.state().programs[0].ready and supervised.state().programs[0].pid != before.pid, 10
    )
    assert not any(pid_alive(pid) for pid in strays)


def test_early_failure_stops_all(supervised: Supervised) -> None:
    """A program that ends three times without ever being ready fails the start, with its last words."""
    supervised.start(
        shell("fine", "sleep 60 & wait"),
        shell("broken", "echo no such table >&2; exit 7", ready="/nonexistent"),
    )
    message = supervised.says()
    assert "broken ended with exit code 7 while starting: no such table" in message
    assert supervised.ends() == 1
    assert supervised.left() == []


def test_not_ready_in_time(supervised: Supervised) -> None:
    """A program that never becomes ready is named when the time is out."""
    supervised.start(shell("late", "sleep 60 & wait", ready="/nonexistent"), start_timeout_s=0.5)
    assert supervised.says() == "Not ready within 0.5 s: late. See 3ox.log."
    assert supervised.ends() == 1
    assert supervised.left() == []


def test_program_that_cannot_be_started(supervised: Supervised) -> None:
    """A program that does not exist fails the start and says which."""
    supervised.start({"name": "ghost", "argv": ["/no/such/program"], "ready": "/nonexistent"})
    assert "/no/such/program: No such file" in supervised.says()
    assert supervised.ends() == 1


def test_the_end_of_the_only_program(supervised: Supervised) -> None:
    """A program that is not to be restarted ends the supervisor, with its exit code."""
    supervised.start(shell("once", "exit 9", restart=False))
    assert supervised.ends() == 9


@linux_only
def test_killed_supervisor(supervised: Supervised) -> None:
    """SIGKILL of the supervisor takes its programs along; what resists is swept by the next one, at once."""
    supervised.start(shell("polite", "sleep 60 & wait"), stubborn(supervised.workspace))
    assert supervised.says() == "ready"
    polite, resists = supervised.state().programs
    assert polite.pid is not None
    assert resists.pid is not None
    supervised.signal(signal.SIGKILL)
    supervised.ends()
    eventually(lambda: not pid_alive(polite.pid or 0))
    assert pid_alive(resists.pid)
    assert running_pid(supervised.workspace) is None
    supervised.start(shell("next", "sleep 60 & wait"))
    assert supervised.says() == "ready"
    assert not pid_alive(resists.pid)


def test_one_at_a_time(supervised: Supervised) -> None:
    """A second supervisor is refused while the first lives; a stale pid file does no harm."""
    supervised.start(shell("one", "sleep 60 & wait"))
    assert supervised.says() == "ready"
    with (
        pytest.raises(AlreadyRunning, match=f"pid {running_pid(supervised.workspace)}"),
        claim(supervised.workspace, grace_s=0),
    ):
        pytest.fail("there are two")
    supervised.signal(signal.SIGTERM)
    assert supervised.ends() == 0
    (supervised.workspace.run_dir / "up.pid").write_text("1\n")
    assert running_pid(supervised.workspace) is None
    with claim(supervised.workspace, grace_s=0):
        assert running_pid(supervised.workspace) == os.getpid()


def test_output_goes_to_the_log(supervised: Supervised) -> None:
    """What a program writes becomes lines of the log, with its name and the severity it gave them."""
    dramatiq = (
        "[2026-11-21 22:00:00,000] [PID 1] [MainThread] [dramatiq.MainProcess] [CRITICAL] worker is gone"
    )
    valkey = "12:M 21 Nov 2026 22:00:00.000 # low memory"
    supervised.start(
        shell("talks", f"echo '{dramatiq}'; echo '{valkey}' >&2; printf 'no end'; sleep 60 & wait")
    )
    assert supervised.says() == "ready"
    eventually(lambda: "low memory" in supervised.workspace.log_file.read_text())
    supervised.signal(signal.SIGTERM)
    supervised.ends()
    lines = {line["text"]: line for line in supervised.log() if line["event"] == "program.output"}
    assert {line["program"] for line in lines.values()} == {"talks"}
    assert (lines["worker is gone"]["level"], lines["worker is gone"]["source"]) == (
        "critical",
        "dramatiq.MainProcess",
    )
    assert lines["low memory"]["level"] == "warning"
    assert lines["no end"]["level"] == "info"


def test_a_state_file_that_cannot_be_written_stops_nothing(supervised: Supervised) -> None:
    """With a full disk what dies is started again all the same; the state file follows when there is room."""
    supervised.start(shell("one", "sleep 60 & wait"), shell("other", "sleep 61 & wait"))
    assert supervised.says() == "ready"
    one, other = supervised.state().programs
    assert one.pid is not None
    draft = supervised.workspace.run_dir / "up.new"
    draft.mkdir()
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: "supervisor.state_not_written" in supervised.workspace.log_file.read_text())
    draft.rmdir()
    eventually(lambda: supervised.state().programs[0].restarts == 1)
    assert supervised.state().programs[1] == other


def test_what_ran_before_is_tried_again_when_it_cannot_be_started(supervised: Supervised) -> None:
    """A lack of processes, memory or a directory is waited for; nothing else is stopped for it."""
    place = supervised.workspace.home / "place"
    place.mkdir()
    supervised.start(shell("one", "sleep 60 & wait", cwd=str(place)), shell("other", "sleep 61 & wait"))
    assert supervised.says() == "ready"
    one, other = supervised.state().programs
    assert one.pid is not None
    place.rmdir()
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: "program.not_started" in supervised.workspace.log_file.read_text())
    place.mkdir()
    eventually(lambda: supervised.state().programs[0].pid is not None)
    assert supervised.state().programs[1] == other


def test_a_copy_of_a_workspace_leaves_the_original_alone(supervised: Supervised, tmp_path: Path) -> None:
    """A backup taken while the bridge ran can be started, or stopped, beside it."""
    supervised.start(shell("one", "sleep 60 & wait"))
    assert supervised.says() == "ready"
    before = supervised.state()
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(supervised.workspace.home, copy.home)
    assert not sweep_leftovers(copy, grace_s=0)
    shutil.copy(supervised.workspace.run_dir / "up.json", copy.run_dir)
    with claim(copy, grace_s=0):
        assert running_pid(copy) == os.getpid()
    assert supervised.state() == before
    assert before.programs[0].pid is not None
    assert pid_alive(before.programs[0].pid)


@pytest.mark.parametrize("text", ["", '{"pid": 1}', '{"pid": 1, "sta'])
def test_a_broken_state_file_keeps_nobody_from_starting(workspace: Workspace, text: str) -> None:
    """What a power cut or another version has left there is replaced."""
    workspace.create()
    (workspace.run_dir / "up.json").write_text(text)
    with claim(workspace, grace_s=0):
        assert running_pid(workspace) == os.getpid()
        assert read_state(workspace) is None


@pytest.mark.parametrize("lost", ["up.pid", "."])
def test_what_lost_its_files_is_found_all_the_same(supervised: Supervised, lost: str) -> None:
    """The run directory of a running bridge is emptied: it can be stopped, and no second one starts."""
    supervised.start(shell("one", "sleep 60 & wait"))
    assert supervised.says() == "ready"
    before = supervised.state()
    run_dir = supervised.workspace.run_dir
    if lost == ".":
        shutil.rmtree(run_dir)
    else:
        (run_dir / lost).unlink()
    eventually(lambda: running_pid(supervised.workspace) == before.pid)
    with pytest.raises(AlreadyRunning, match=f"pid {before.pid}"), claim(supervised.workspace, grace_s=0):
        pytest.fail("there are two")
    assert supervised.state() == before
    supervised.signal(signal.SIGTERM)
    assert supervised.ends() == 0
    assert running_pid(supervised.workspace) is None
