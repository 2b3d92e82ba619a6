"""Processes: found by parent, group and mark, and ended with everything that they started."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.processes import (
    command_line,
    descendants,
    find_forked,
    find_marked,
    group_members,
    pid_alive,
    process_start_time,
    stop_processes,
    wait_ended,
)
from ops.supervision.launch import launch_argv
from tests.support import clean_environ, eventually, frozen
from tests.tools import require_tool

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel lacks it")
#: Neither lets itself be stopped nor ends by itself: it stays until it is killed.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark of our own; whatever bears it is ended after the test."""
    value = uuid.uuid4().hex
    yield value
    assert stop_processes(lambda: find_marked("BRIDGE_JOB_ID", value), grace_s=0)


def shell(mark: str, script: str) -> subprocess.Popen[bytes]:
    """Run a shell script under a mark."""
    return subprocess.Popen(
        ["sh", "-c", script], env=clean_environ({"BRIDGE_JOB_ID": mark}), start_new_session=True
    )


def test_found_by_mark_parent_and_group(mark: str) -> None:
    """A tree is found in all three ways; a process that left its session and parent only by its mark."""
    require_tool("setsid")
    root = shell(mark, "sleep 60 & setsid sleep 61 & sh -c 'sleep 62; true' & wait")
    eventually(lambda: len(find_marked("BRIDGE_JOB_ID", mark)) == 5)
    eventually(lambda: len(descendants(root.pid)) == 4)
    eventually(lambda: len(group_members(root.pid)) == 4)
    assert find_marked("BRIDGE_JOB_ID", mark[:-1]) == []
    assert len(find_marked("BRIDGE_JOB_ID", mark, also=f"BRIDGE_JOB_ID={mark}")) == 5
    assert find_marked("BRIDGE_JOB_ID", mark, also="BRIDGE_WORKER_ID=another") == []
    root.kill()
    root.wait()
    assert len(find_marked("BRIDGE_JOB_ID", mark)) == 4
    assert descendants(root.pid) == []


def test_stop_ends_a_whole_tree(mark: str) -> None:
    """TERM ends the polite, KILL the stubborn and the stopped, and new children are found as they come."""
    require_tool("setsid")
    root = shell(mark, f'setsid {sys.executable} -c "{STUBBORN}" & while :; do sleep 60 & wait $!; done')
    eventually(lambda: len(find_marked("BRIDGE_JOB_ID", mark)) == 3)
    with contextlib.ExitStack() as stack:
        for pid in group_members(root.pid):
            stack.enter_context(frozen(pid))
        started_s = time.monotonic()
        assert stop_processes(lambda: find_marked("BRIDGE_JOB_ID", mark), grace_s=0.3)
        assert time.monotonic() - started_s < 5
    assert find_marked("BRIDGE_JOB_ID", mark) == []
    assert root.wait(5) < 0


def test_stop_waits_no_longer_than_needed(mark: str) -> None:
    """The grace is a bound, not a pause."""
    root = shell(mark, "sleep 60 & wait")
    eventually(lambda: len(find_marked("BRIDGE_JOB_ID", mark)) == 2)
    started_s = time.monotonic()
    assert stop_processes(lambda: find_marked("BRIDGE_JOB_ID", mark), grace_s=30)
    assert time.monotonic() - started_s < 5
    root.wait(5)


def test_a_zombie_is_not_alive(mark: str) -> None:
    """A process that has ended but was not reaped counts as gone, everywhere."""
    child = shell(mark, "exit 0")
    assert wait_ended([child.pid], 10)
    eventually(lambda: not pid_alive(child.pid))
    assert find_marked("BRIDGE_JOB_ID", mark) == []
    assert stop_processes(lambda: [child.pid], grace_s=5)
    child.wait()


def test_a_reused_pid_is_another_process() -> None:
    """The start time tells a process from a later one of the same pid."""
    ours = process_start_time(os.getpid())
    assert ours is not None
    assert pid_alive(os.getpid(), ours)
    assert not pid_alive(os.getpid(), ours - 1)
    assert process_start_time(2**22 + 1) is None


def test_wait_is_bounded(mark: str) -> None:
    """Waiting for what does not end gives up in time."""
    child = shell(mark, "sleep 60")
    assert not wait_ended([child.pid], 0.05)
    child.kill()
    assert wait_ended([child.pid], 10)
    child.wait()


#: Stays until it is killed.
PARENT = """
import subprocess, sys, time
from ops.supervision.launch import launch_argv
print(subprocess.Popen(launch_argv(["sleep", "60"], 15)).pid, flush=True)
time.sleep(60)
"""


@linux_only
def test_launched_program_dies_with_its_parent(mark: str) -> None:
    """SIGKILL of the parent takes the launched program along."""
    environ = clean_environ({"BRIDGE_JOB_ID": mark})
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environ, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    eventually(lambda: os.path.realpath(f"/proc/{pid}/exe").endswith(("sleep", "coreutils", "busybox")))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not pid_alive(pid))


def test_launch_says_what_cannot_be_started() -> None:
    """A program that does not exist is named, with the exit code of a shell."""
    ran = subprocess.run(launch_argv(["no-such-program"], 15), capture_output=True, text=True, check=False)
    assert ran.returncode == 127
    assert "no-such-program: No such file" in ran.stderr


@linux_only
def test_listing_through_ps_agrees(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What macOS gets out of ps is what Linux reads from /proc."""
    require_tool("ps")
    root = shell(mark, "sleep 60 & sleep 61 & wait")
    eventually(lambda: len(find_marked("BRIDGE_JOB_ID", mark)) == 3)
    expected = (
        set(find_marked("BRIDGE_JOB_ID", mark)),
        set(descendants(root.pid)),
        set(group_members(root.pid)),
    )
    monkeypatch.setattr("ops.processes.LINUX", False)
    assert expected == (
        set(find_marked("BRIDGE_JOB_ID", mark)),
        set(descendants(root.pid)),
        set(group_members(root.pid)),
    )
    assert pid_alive(root.pid, process_start_time(root.pid))
    monkeypatch.undo()
    root.kill()
    root.wait()


@linux_only
def test_found_by_what_it_has_mapped_until_it_runs_a_program(tmp_path: Path) -> None:
    """A forked process has the memory of its parent, and another one after exec."""
    name = f"mapped-{uuid.uuid4().hex}"
    command = command_line(os.getpid())
    with (tmp_path / name).open("w+b") as file:
        file.write(b"x")
        file.flush()
        memory = mmap.mmap(file.fileno(), 1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)  # returns when the parent closes the other end
            os.execvp("sleep", ["sleep", "60"])  # noqa: S606
        assert find_forked(name, command)[0] == find_forked(name, b"")[0] == [child]
        assert find_forked(name, b"another")[0] == []
        os.close(writer)
        eventually(lambda: find_forked(name, b"")[0] == [])
        memory.close()
    os.close(reader)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@linux_only
def test_nothing_is_starting_after_a_while() -> None:
    """Threads of the kernel, zombies and running programs do not count."""
    eventually(lambda: not find_forked("no such file", b"no such command")[1])
