"""A bridge of the test's own, with projects, a git repository and as many workers as it wants."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingress.dispatch import Bridge, connect
from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.tools import require_tool
from tests.workers import Worker, running_worker, sweep

SETTINGS = """
kill_grace_s = 0.5
progress_interval_s = 0.02
max_crashes = 100
"""
#: Runs what the task says, as a shell script.
COMMAND = """command = ["sh", "-c", 'eval "$BRIDGE_TASK"']"""


def git(directory: Path, *arguments: str) -> str:
    """Run git as a user does and return its output."""
    argv = [require_tool("git"), *arguments]
    ran = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def make_repository(path: Path) -> Path:
    """Create a repository with one commit: two files, one of them in a folder."""
    (path / "sub").mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "config", "user.email", "tester@example.org")
    git(path, "config", "user.name", "Tester")
    (path / "a.txt").write_text("one\n")
    (path / "sub" / "b.txt").write_text("two\n")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "first")
    return path


class Site:
    """One host of a bridge.

    Parameters:
        environ: Of its processes.

    Attributes:
        home: Its workspace.
        cli: Its command line.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.home = Path(environ["BRIDGE_HOME"])
        self.home.mkdir(exist_ok=True)
        self.cli = Cli(environ)
        self.bridge: Bridge

    def configure(self, toml: str) -> None:
        """Write 3ox.toml and connect to the bridge."""
        (self.home / "3ox.toml").write_text(SETTINGS + toml)
        self.bridge = connect(load_settings(environ=self.environ))
        self.bridge.loaded.workspace.create()

    def add(self, task: str, project: str = "demo", **fields: Any) -> str:
        """Submit a task and return its id."""
        from ingress.dispatch import dispatch

        return dispatch("task.custom", {"task": task}, project=project, **fields).job_id

    @contextlib.contextmanager
    def workers(self, count: int = 1, *, threads: int = 4) -> Iterator[list[Worker]]:
        """Run this number of worker processes."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(
                    running_worker(self.bridge, self.environ, threads=threads, name=f"worker-{number}")
                )
                for number in range(count)
            ]


@pytest.fixture
def site(environ: dict[str, str]) -> Iterator[Site]:
    """A bridge with short leases; its processes are stopped afterwards."""
    made = Site({**environ, "BRIDGE_LEASE_S": "2", "BRIDGE_HEARTBEAT_S": "0.5"})
    yield made
    made.cli.end()
    sweep(environ)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository."""
    return make_repository(tmp_path / "repository")


def project(path: Path, name: str = "demo", *more: str) -> str:
    """Return the settings of a project that runs its task as a shell script."""
    return "\n".join([f'[projects.{name}]\npath = "{path}"', COMMAND, *more, ""])


PYTHON = sys.executable
