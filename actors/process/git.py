"""Runs git for a job: bounded, stopped when the job is, deaf to what the repository would have it run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from ops.errors import JobFailed, JobRefused

#: A checkout of a large repository takes minutes, never this long.
TIMEOUT_S = 600.0
_GRACE_S = 5.0
_TOLD_MAX_CHARS = 500
#: Hooks and monitors of the repository are programs that a task may have put there; a signature asks for a
#: passphrase; a collection of garbage takes its time when nobody expects it.
_DEAF = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "gc.auto=0",
)
#: A repository that the caller stands in must not be taken for the one that is meant.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME")


class GitFailed(JobFailed):
    """Git ended with a status other than 0."""


class Git:
    """Git in one directory.

    Parameters:
        directory: Where it runs.
        marks: Variables that mark the processes of a job, see ``actors.process.child.job_marks``.
    """

    def __init__(self, directory: Path, marks: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._marks = {} if marks is None else dict(marks)
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End what runs; called from another thread. What is run later is not affected."""
        running = self._running
        if running is not None:
            self._stopped = True
            # Git removes its lock files when it is asked to end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)

    def __call__(self, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> str:
        """Run git and give its output without the line end.

        Args:
            *arguments: After ``git``.
            environ: Variables in addition.

        Raises:
            GitFailed: It did not succeed, or took longer than ``TIMEOUT_S``.
            JobRefused: There is no git.
        """
        return self.raw(*arguments, environ=environ).decode(errors="replace").removesuffix("\n")

    def raw(
        self, *arguments: str | Path, environ: Mapping[str, str] | None = None, limit_bytes: int | None = None
    ) -> bytes:
        """Run git and give its output, of which ``limit_bytes`` at most are read; see ``__call__``."""
        with self._start(arguments, environ) as process:
            if limit_bytes is not None and process.stdout is not None:
                begun = process.stdout.read(limit_bytes)
                if len(begun) == limit_bytes:
                    return begun
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise GitFailed(f"git {arguments[0]} took more than {TIMEOUT_S:g} s.") from error
        if process.returncode != 0:
            raise self._failed(str(arguments[0]), process.returncode, err.decode(errors="replace"))
        return out if limit_bytes is None else begun + out

    def answers(self, *arguments: str | Path) -> bool:
        """Run git for its exit status alone."""
        try:
            self(*arguments)
        except GitFailed:
            return False
        return True

    @contextlib.contextmanager
    def _start(
        self, arguments: tuple[str | Path, ...], environ: Mapping[str, str] | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            process = subprocess.Popen(
                ["git", *_DEAF, *map(str, arguments)],
                cwd=self.directory,
                env={
                    **inherited,
                    "LC_ALL": "C",
                    "GIT_TERMINAL_PROMPT": "0",
                    **self._marks,
                    **({} if environ is None else environ),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise JobRefused(
                f"git cannot be run in {str(self.directory)!r}: {error.strerror} ({error.filename}).",
                remedy="Install git on the worker's host, and check the project's path.",
            ) from error
        self._running, self._stopped = process, False
        try:
            yield process
        finally:
            self._running = None
            _end(process)

    def _failed(self, command: str, status: int, said: str) -> GitFailed:
        if self._stopped:
            return GitFailed(f"git {command} was stopped with its job.")
        told = " ".join(said.split())[:_TOLD_MAX_CHARS]
        return GitFailed(f"git {command} failed in {self.directory} ({status}): {told}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of it running and no pipe open."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_GRACE_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
