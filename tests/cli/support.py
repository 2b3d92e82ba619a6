"""Runs ``3ox`` as a user does: as a process, with its exit code, stdout and stderr."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tests.support import eventually, run_3ox, threeox

_SILENCE_S = 30.0
#: Text on a terminal -> what the user does when it appears.
Reactions: TypeAlias = Mapping[str, Callable[[subprocess.Popen[bytes]], object]]


class Outcome(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout, parsed as one JSON document."""
        return json.loads(self.out)


class Cli:
    """The command line with one environment.

    Parameters:
        environ: Environment of every process.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Outcome:
        """Run a command and return its outcome."""
        done = run_3ox(*arguments, environ=self.environ, stdin=stdin, cwd=cwd)
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command without waiting; signals reach it as for a user's command."""
        # A test run in the background may ignore Ctrl-C, and children would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            threeox(*arguments),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Stop the processes that a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait(10.0)

    def job(self, job_id: str) -> Any:
        """Return a job as JSON."""
        return self("jobs", job_id, "--json").json

    def wait_for_status(self, job_id: str, *states: str) -> Any:
        """Wait until a job is in one of these states."""
        return eventually(lambda: self._if_in(job_id, states), 15.0)

    def _if_in(self, job_id: str, states: tuple[str, ...]) -> Any:
        found = self.job(job_id)
        return found if found["status"] in states else None

    def on_terminal(
        self, *arguments: str, columns: int = 100, reactions: Reactions | None = None
    ) -> tuple[int, str]:
        """Run a command on a terminal of its own; return its exit code and everything it drew.

        Args:
            *arguments: Of the command.
            columns: Width of the terminal.
            reactions: What to do when a text has been drawn, in this order, each once.
        """
        pending = list({} if reactions is None else reactions.items())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main, side = pty.openpty()
        environ = {**self.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30"}
        process = subprocess.Popen(
            threeox(*arguments), env=environ, stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)
        drawn = b""
        with closing(os.fdopen(main, "rb", buffering=0)) as screen:
            while True:
                if not select.select([screen], [], [], _SILENCE_S)[0]:
                    process.kill()
                    raise AssertionError(f"nothing more was drawn after: {drawn.decode()[-500:]!r}")
                try:
                    piece = screen.read(65_536)
                except OSError:  # EIO: the last process has let go of the terminal
                    break
                if not piece:
                    break
                drawn += piece
                if pending and pending[0][0].encode() in drawn:
                    pending.pop(0)[1](process)
        return process.wait(10.0), drawn.decode()
