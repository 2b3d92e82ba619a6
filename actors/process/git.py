"""Runs git for a job: with a timeout, stopped with the job, and without running hooks of the repository."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from ops.environment import NETWORK_VARIABLES, selected
from ops.errors import JobFailed, JobRefused

#: Timeout of a git command; the checkout of a large repository takes minutes.
TIMEOUT_S = 600.0
_GRACE_S = 5.0
_ERROR_MAX_CHARS = 500
#: Disables hooks and file system monitors (programs that a task may have put there), signatures (which may
#: ask for a passphrase) and automatic garbage collection.
_SAFE_OPTIONS = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "gc.auto=0",
)
#: Variables passed to git. GIT_DIR and the like are not: they would select the repository of the caller.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME")


class GitFailed(JobFailed):
    """A git command failed."""


class Git:
    """Git in one directory.

    Parameters:
        directory: Working directory.
        marks: Environment variables that mark the processes of a job, see ``actors.process.child.job_marks``.
    """

    def __init__(self, directory: Path, marks: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._marks = {} if marks is None else dict(marks)
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Stop the running command, from another thread; later commands are not affected."""
        running = self._running
        if running is not None:
            self._stopped = True
            # Git removes its lock files on SIGTERM.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)

    def __call__(self, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> str:
        """Run git and return its output without the final newline.

        Args:
            *arguments: Arguments of ``git``.
            environ: Additional environment variables.

        Raises:
            GitFailed: The command failed, or took longer than ``TIMEOUT_S``.
            JobRefused: Git is not installed, or the directory does not exist.
        """
        return self.raw(*arguments, environ=environ).decode(errors="replace").removesuffix("\n")

    def raw(
        self, *arguments: str | Path, environ: Mapping[str, str] | None = None, limit_bytes: int | None = None
    ) -> bytes:
        """Run git and return at most ``limit_bytes`` of its output; see ``__call__``."""
        with self._start(arguments, environ) as process:
            if limit_bytes is not None and process.stdout is not None:
                head = process.stdout.read(limit_bytes)
                if len(head) == limit_bytes:
                    return head
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise GitFailed(f"git {arguments[0]} took more than {TIMEOUT_S:g} s.") from error
        if process.returncode != 0:
            raise self._failed(str(arguments[0]), process.returncode, err.decode(errors="replace"))
        return out if limit_bytes is None else head + out

    def succeeds(self, *arguments: str | Path) -> bool:
        """Run git and return whether its exit status is 0."""
        try:
            self(*arguments)
        except GitFailed:
            return False
        return True

    @contextlib.contextmanager
    def _start(
        self, arguments: tuple[str | Path, ...], environ: Mapping[str, str] | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        inherited = selected((*_INHERITED, *NETWORK_VARIABLES))
        try:
            process = subprocess.Popen(
                ["git", *_SAFE_OPTIONS, *map(str, arguments)],
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
                f"Git cannot be run in {str(self.directory)!r}: {error.strerror} ({error.filename}).",
                remedy="Install git on the worker's host, and check the project's path.",
            ) from error
        self._running, self._stopped = process, False
        try:
            yield process
        finally:
            self._running = None
            _end(process)

    def _failed(self, command: str, status: int, errors: str) -> GitFailed:
        if self._stopped:
            return GitFailed(f"git {command} was stopped with its job.")
        excerpt = " ".join(errors.split())[:_ERROR_MAX_CHARS]
        return GitFailed(f"git {command} failed in {self.directory} ({status}): {excerpt}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the process if it is running, and close its pipes."""
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
