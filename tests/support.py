"""What tests of every part share: waiting for a condition, running a real store, running the command line."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ops.environment import NETWORK_VARIABLES
from ops.settings.load import ENV_FOREIGN, LoadedSettings
from ops.store.embedded import EmbeddedValkey
from tests.forked import ForkServer

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
#: Commands that ask something of a bridge and end; the others are bridges.
SHORT = frozenset(
    [
        *("approve", "ask", "cancel", "config", "deny", "doctor", "down", "drop", "export", "jobs", "logs"),
        *("receipt", "retry", "run", "sessions", "sh", "status", "submit", "token", "track", "types"),
        *("undo", "verify", "wait"),
    ]
)


def eventually(predicate: Callable[[], T], timeout_s: float = 10.0, *, every_s: float = 0.01) -> T:
    """Call ``predicate`` until it gives something true, and give that; fail when the time is out.

    Args:
        predicate: The condition.
        timeout_s: Bound; generous, since it is only used up by a failing test.
        every_s: Pause between two tries.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline_s:
            message = f"not true within {timeout_s:g} s: {getattr(predicate, '__name__', predicate)!r}"
            raise AssertionError(message)
        time.sleep(every_s)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process with SIGSTOP for the time of a block; it may be killed there.

    The block begins when every thread has stopped: the signal is still on its way when kill() returns, and an
    idle worker takes a job within a millisecond.
    """
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _is_stopped(task: Path) -> bool:
    try:
        stat = (task / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended since it was found
        return False
    # The name, in brackets, may itself hold spaces and brackets; see proc_pid_stat(5).
    return stat.rpartition(")")[2].split()[0] == "T"


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment without settings and proxies, with the repository importable from anywhere."""
    foreign = ("BRIDGE_", *ENV_FOREIGN, *NETWORK_VARIABLES)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ["PYTHONPATH"] = str(ROOT)
    # Otherwise every process compiles what is not compiled yet, such as the packages of a new environment.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Any port that is free: tests run beside each other, and beside a bridge that somebody uses.
    environ["BRIDGE_API_PORT"] = "0"
    environ.update({} if extra is None else extra)
    return environ


def new_prefix() -> str:
    """Return a key prefix that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}:"


def bridge_environ(
    home: Path, store_url: str, settings: str = "", extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a bridge with a key prefix of its own.

    Args:
        home: Its workspace; a folder that is there.
        store_url: Where its store is.
        settings: What its 3ox.toml holds; empty writes none.
        extra: Further variables.
    """
    if settings:
        (home / "3ox.toml").write_text(settings)
    own = {"BRIDGE_HOME": str(home), "BRIDGE_REDIS_URL": store_url, "BRIDGE_KEY_PREFIX": new_prefix()}
    return clean_environ({**own, **({} if extra is None else extra)})


class RunningValkey:
    """A real store in a process of its own; ``kill`` and ``start`` it as the test needs.

    Parameters:
        loaded: Settings whose workspace holds the data.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self.server = EmbeddedValkey(loaded)
        self.url = f"unix://{self.server.socket_path}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.prepare()
        self.process = subprocess.Popen(
            self.server.argv,
            pass_fds=self.server.pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.server.wait_ready(10.0)

    @property
    def pid(self) -> int:
        """Of the process, which runs."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10.0)
            self.process = None

    def stop(self) -> None:
        """End it in order and remove what it leaves."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10.0)
            self.process = None
        self.server.release()


@functools.cache
def fork_server() -> ForkServer:
    """Return the process that forks a process for each short command, started now if need be."""
    return ForkServer(clean_environ())


def run_3ox(
    *arguments: str,
    environ: Mapping[str, str],
    stdin: str = "",
    timeout_s: float = 30.0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``3ox`` as a real process and give its exit code, stdout and stderr."""
    server = fork_server()
    if arguments and arguments[0] in SHORT and server.serves(environ):
        place = Path.cwd() if cwd is None else cwd
        return server.run(arguments, environ=environ, cwd=place, stdin=stdin, timeout_s=timeout_s)
    return subprocess.run(
        threeox(*arguments),
        env=dict(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=cwd,
    )


def threeox(*arguments: str) -> Sequence[str]:
    """Return the argument list that runs ``3ox`` with this interpreter, installed or not."""
    return [sys.executable, "-m", "ingress.cli.start", *arguments]
