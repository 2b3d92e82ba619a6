"""One supervised child process, and everything that it starts.

The child gets a session of its own and the job's id in its environment. Its output is read as it comes,
from whichever pipe has some; cancellation and time limits wake the same wait. However it ends, nothing of it
is left: what has not ended by itself is asked to (SIGTERM) and then made to (SIGKILL) before the job goes on.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from actors.context import JobContext, current_job
from actors.process.pipes import ChildPipes, Piece, WakePipe
from actors.process.process_group import GroupTermination, ProcessGroup
from ops.errors import JobFailed, JobParked, JobRefused

#: A command that has ended may have left helpers that are about to end too (``tee`` at the end of a pipe):
#: they have so long before they are stopped.
LEFTOVER_GRACE_S = 0.5
_SIGNALLED_STATUS = 128
#: The machine's doing, not the command's: too few descriptors, processes, or too little memory.
_LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
#: A command that could not be started for such a reason is put off for so long, and for so long in all.
_PUT_OFF_S = 2.0
_PUT_OFF_MAX_S = 3600.0


class ChildExit(Struct, frozen=True, kw_only=True):
    """How a child ended.

    Attributes:
        exit_status: Its exit status; 128 + the signal's number if a signal ended it, as in a shell.
        signal: Name of that signal, or None.
        duration_s: From its start to the end of everything it had started, in seconds.
    """

    exit_status: int
    signal: str | None
    duration_s: float


class CommandResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command left behind: the result of ``shell.cmd`` and ``task.custom``.

    Attributes:
        exit_status: Its exit status; 128 + the signal's number if a signal ended it.
        signal: Name of that signal, or None.
        stdout_tail: End of what it wrote to standard output; the whole is in the job's output.
        stderr_tail: The same of standard error.
        duration_s: How long it ran, in seconds.
        truncated: Whether the job's output lacks a part, since it was longer than ``output_max_bytes``.
    """

    exit_status: int
    signal: str | None = None
    stdout_tail: str = ""
    stderr_tail: str = ""
    duration_s: float = 0.0
    truncated: bool = False


class CommandFailed(JobFailed):
    """The command ended with a status other than 0.

    Parameters:
        result: What it left behind; stored with the failed job.
    """

    def __init__(self, message: str, *, result: CommandResult, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.result = result


class ChildTimedOut(JobFailed):
    """The child ran for longer than it was given, and was stopped."""


def job_marks(context: JobContext) -> dict[str, str]:
    """Give the variables by which every process that a job has started is found, wherever it hides."""
    marks = {"BRIDGE_JOB_ID": context.job_id, "BRIDGE_WORKER_ID": context.worker_id}
    if "BRIDGE_SUPERVISED" in os.environ:
        # By this mark the next `3ox up` finds what a killed supervisor has left behind.
        marks["BRIDGE_SUPERVISED"] = os.environ["BRIDGE_SUPERVISED"]
    return {name: value for name, value in marks.items() if value != ""}


class Child:
    """A child process of the current job.

    Parameters:
        argv: Program and arguments; no shell sees them.
        cwd: Where it runs.
        env: Its whole environment, the marks of the job excepted.
        kill_grace_s: Time between SIGTERM and SIGKILL.
        stdin: Text for its standard input; without it, it reads an empty file.
        timeout_s: Bound on its run, beside the job's own time limit.

    Attributes:
        exit: How it ended; None until ``pieces`` has ended.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        kill_grace_s: float,
        stdin: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._context = current_job()
        self._argv = list(argv)
        self._cwd = cwd
        self._env = {**env, **job_marks(self._context)}
        self._kill_grace_s = kill_grace_s
        self._stdin = b"" if stdin is None else stdin.encode("utf-8", "replace")
        self._timeout_s = timeout_s
        self._timed_out = False
        self.exit: ChildExit | None = None

    def pieces(self) -> Generator[Piece]:
        """Run the child and give its output as it comes; closing the generator stops the child.

        Yields:
            The stream's name and some text, in the order in which it was read.

        Raises:
            JobRefused: The program or the directory does not exist, or cannot be used.
            JobParked: The machine lacks what it takes to start it; nothing was started.
            JobFailed: Something of the child could not be stopped.
            ChildTimedOut: ``timeout_s`` ran out.
            JobInterrupted: The job was cancelled or ran out of time; nothing of the child is left.
        """
        self._context.check_cancelled()
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                wake = stack.enter_context(WakePipe())
            except OSError as error:
                self._explain(error)
            stack.enter_context(self._context.on_interrupt(lambda _: wake.set()))
            popen = self._start()
            family = ProcessGroup(
                popen,
                job_id=self._context.job_id,
                worker_id=self._context.worker_id,
                kill_grace_s=self._kill_grace_s,
            )
            # Also when the reader of the pieces gives up, or an exception is thrown into this thread.
            stack.callback(family.stop)
            streams = stack.enter_context(ChildPipes(popen, self._stdin, wake))
            yield from self._until_ended(popen, streams, started)
            by_itself = popen.poll() is not None and not self._timed_out
            if family.members():
                patience_s = LEFTOVER_GRACE_S if by_itself else 0.0
                sweep = stack.enter_context(GroupTermination(family, patience_s, wake))
                # Read on: what has been asked to end may have something to say, and must not be blocked.
                while not sweep.ended:
                    yield from streams.read(None)
                if by_itself and sweep.stopped > 0:
                    yield "err", _leftover_note(sweep.stopped)
            yield from streams.rest()
            family.require_gone()
            if not by_itself:
                self._context.stopped = family.how_stopped()
        self._context.check_cancelled()
        if self._timed_out:
            raise ChildTimedOut(f"{self._argv[0]} ran for more than {self._timeout_s:g} s and was stopped.")
        self.exit = _exit_of(popen.wait(), time.monotonic() - started)

    def _until_ended(
        self, popen: subprocess.Popen[bytes], streams: ChildPipes, started: float
    ) -> Generator[Piece]:
        """Read until the child itself ends, its time is up, or its job is interrupted."""
        deadline = math.inf if self._timeout_s is None else started + self._timeout_s
        while popen.poll() is None and self._context.interrupt_requested is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._timed_out = True
                return
            yield from streams.read(None if left_s == math.inf else left_s)

    def _start(self) -> subprocess.Popen[bytes]:
        # Unlike Path.is_dir, this answers False to every path that cannot be looked at.
        if not os.path.isdir(self._cwd):  # noqa: PTH112
            raise JobRefused(
                f"the directory {str(self._cwd)!r} does not exist.", remedy="Make it, or name another one."
            )
        try:
            return subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE if self._stdin != b"" else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._explain(error)

    def _explain(self, error: OSError | ValueError) -> NoReturn:
        program = self._argv[0]
        if isinstance(error, OSError) and error.errno in _LACKING:
            raise JobParked(
                f"{program!r} could not be started: {error.strerror}.",
                after_s=_PUT_OFF_S,
                limit_s=_PUT_OFF_MAX_S,
                remedy="Raise the worker's limits (ulimit -n, ulimit -u), or run fewer threads.",
            ) from error
        if isinstance(error, PermissionError) and str(error.filename) == str(self._cwd):
            raise JobRefused(
                f"the directory {str(self._cwd)!r} may not be entered.",
                remedy="Give the worker's user access to it, or name another one.",
            ) from error
        if isinstance(error, FileNotFoundError):
            raise JobRefused(
                f"there is no program {program!r}.",
                remedy="Check its name, the PATH of the worker, and the interpreter in its first line.",
            ) from error
        if isinstance(error, PermissionError):
            raise JobRefused(
                f"{program!r} may not be run.",
                remedy="Make it executable, and its directory and interpreter accessible.",
            ) from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise JobRefused(f"{program!r} cannot be run: {reason}.", remedy="Correct the command.") from error


def _leftover_note(count: int) -> str:
    what = "a process" if count == 1 else f"{count} processes"
    return f"3ox: the command ended and left {what} behind; stopped.\n"


def _exit_of(code: int, duration_s: float) -> ChildExit:
    if code >= 0:
        return ChildExit(exit_status=code, signal=None, duration_s=round(duration_s, 3))
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return ChildExit(exit_status=_SIGNALLED_STATUS - code, signal=name, duration_s=round(duration_s, 3))
