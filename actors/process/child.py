"""A supervised child process and its descendants.

The child has its own session and the job's id in its environment. One wait covers its output, cancellation
and timeouts. However it ends, none of its processes is left: those still running get SIGTERM, then SIGKILL,
before the job goes on.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import math
import os
import re
import shlex
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
from actors.process.results import CommandResult
from middleware.interrupts import JobCancelled
from middleware.job.records import StreamName
from middleware.streams.attached import Attached
from ops.environment import variable
from ops.errors import JobFailed, JobParked, JobRefused

#: Time for helper processes to end by themselves after the command (``tee`` at the end of a pipe).
LEFTOVER_GRACE_S = 0.5
_SIGNALLED_STATUS = 128
#: Errors for which the host lacks descriptors, processes or memory; the command is not at fault.
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
#: Delay before such a command is started again, and the limit of all such delays of a job.
_RESOURCES_WAIT_S = 2.0
_RESOURCES_WAIT_MAX_S = 3600.0
#: How long a stopped command's last output may take to reach the caller, in seconds.
_LAST_OUTPUT_S = 2.0
_OUTPUTS: tuple[StreamName, ...] = ("out", "err")
#: What makes the only word of a command look like a command line.
_SHELL_SYNTAX = re.compile(r"[\s|&;<>$`*?(){}]")


class ChildExit(Struct, frozen=True, kw_only=True):
    """How a child ended.

    Attributes:
        exit_status: Its exit status; 128 + signal number if a signal ended it, as in a shell.
        signal: Name of that signal, or None.
        duration_s: Time from its start to the end of its last process, in seconds.
    """

    exit_status: int
    signal: str | None
    duration_s: float


class CommandFailed(JobFailed):
    """The exit status of the command is not 0.

    Parameters:
        result: Result of the command; stored with the failed job.
    """

    def __init__(self, message: str, *, result: CommandResult, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.result = result


class CommandNotStarted(JobRefused):
    """The program does not exist or cannot be executed.

    Parameters:
        exit_status: 127 or 126, as a shell has it.
    """

    def __init__(self, message: str, remedy: str, *, exit_status: int) -> None:
        super().__init__(message, remedy=remedy)
        self.result = CommandResult(exit_status=exit_status)


class ChildTimedOut(JobFailed):
    """The child exceeded its timeout and was stopped."""


def job_marks(context: JobContext) -> dict[str, str]:
    """Return the environment variables by which all processes of a job are found, even detached ones."""
    marks = {"BRIDGE_JOB_ID": context.job_id, "BRIDGE_WORKER_ID": context.worker_id}
    # By this mark, the next `3ox up` finds the processes that a killed supervisor has left.
    marks["BRIDGE_SUPERVISED"] = variable("BRIDGE_SUPERVISED")
    return {name: value for name, value in marks.items() if value != ""}


class Child:
    """A child process of the current job.

    Parameters:
        argv: Program and arguments; no shell parses them.
        cwd: Working directory.
        env: Its whole environment except the marks of the job.
        kill_grace_s: Time between SIGTERM and SIGKILL, in seconds.
        stdin: Its standard input; empty when None.
        streams: The caller that stdin comes from and its output is passed on to.
        timeout_s: Timeout of its run, besides the job's own, in seconds.

    Attributes:
        exit: How it ended; None until ``pieces`` is exhausted.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        kill_grace_s: float,
        stdin: str | bytes | None = None,
        streams: Attached | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._context = current_job()
        self._argv = list(argv)
        self._cwd = cwd
        self._env = {**env, **job_marks(self._context)}
        self._kill_grace_s = kill_grace_s
        text = b"" if stdin is None else stdin
        self._stdin = text.encode("utf-8", "replace") if isinstance(text, str) else text
        self._streams = streams
        self._timeout_s = timeout_s
        self._timed_out = False
        self.exit: ChildExit | None = None

    def pieces(self) -> Generator[tuple[StreamName, str]]:
        """Run the child as ``output`` does, and yield its output as text."""
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in _OUTPUTS}
        with contextlib.closing(self.output()) as pieces:
            for name, data in pieces:
                if text := decoders[name].decode(data):
                    yield name, text
        for name, decoder in decoders.items():
            if text := decoder.decode(b"", final=True):
                yield name, text

    def output(self) -> Generator[Piece]:
        """Run the child and yield its output as it arrives; closing the generator stops the child.

        Yields:
            Name of the stream and a piece of it, in the order of reading.

        Raises:
            CommandNotStarted: The program does not exist or cannot be executed.
            JobRefused: The directory does not exist or cannot be used; or a process of the child could not be
                stopped.
            JobParked: The host lacks the resources to start it; nothing was started.
            ChildTimedOut: ``timeout_s`` expired.
            JobInterrupted: The job was cancelled or ran out of time, or its caller is gone; no process of the
                child is left.
        """
        self._is_interrupted()
        self._context.check_cancelled()
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                wake = stack.enter_context(WakePipe())
            except OSError as error:
                self._explain(error)
            stack.enter_context(self._context.on_interrupt(lambda _: wake.set()))
            if self._streams is not None:
                self._streams.on_change(wake.set)
            popen = self._start()
            group = ProcessGroup(
                popen,
                job_id=self._context.job_id,
                worker_id=self._context.worker_id,
                kill_grace_s=self._kill_grace_s,
            )
            # Also when the generator is closed, or an exception is raised in this thread.
            stack.callback(group.stop)
            pipes = stack.enter_context(ChildPipes(popen, self._stdin, wake, self._streams))
            yield from self._until_ended(popen, pipes, started)
            by_itself = popen.poll() is not None and not self._timed_out
            if group.members():
                grace_s = LEFTOVER_GRACE_S if by_itself else 0.0
                termination = stack.enter_context(GroupTermination(group, grace_s, wake))
                # Keep reading: processes that are ending may write, and must not block on a full pipe.
                while not termination.ended:
                    yield from pipes.read(None)
                if by_itself and termination.stopped > 0:
                    yield "err", self._leftover_note(termination.stopped)
            yield from pipes.rest(lambda: not by_itself or self._must_hurry())
            group.require_gone()
            if not by_itself:
                self._context.stopped = "; ".join(filter(None, (self._context.stopped, group.how_stopped())))
        self._finish_streams(by_itself=by_itself)
        self._context.check_cancelled()
        if self._timed_out:
            raise ChildTimedOut(f"{self._argv[0]} ran for more than {self._timeout_s:g} s and was stopped.")
        self.exit = _exit_of(popen.wait(), time.monotonic() - started)

    def _is_interrupted(self) -> bool:
        """Return whether the job is to stop; it is if its caller is gone."""
        if self._streams is not None and self._streams.is_gone:
            if self._context.interrupt_requested is None:
                self._context.stopped = "its caller is gone"
            self._context.interrupt(JobCancelled)
        return self._context.interrupt_requested is not None

    def _must_hurry(self) -> bool:
        """Return whether to wait for the caller no longer; a command that has ended is not cancelled."""
        gone = self._streams is not None and self._streams.is_gone
        return gone or self._context.interrupt_requested is not None

    def _finish_streams(self, *, by_itself: bool) -> None:
        """Wait until the caller has the rest of the output; for a stopped command only for a moment."""
        if self._streams is None or self._streams.is_gone:
            return
        if by_itself:
            self._streams.finish(until=self._must_hurry)
        else:
            self._streams.finish(until=lambda: False, timeout_s=_LAST_OUTPUT_S)

    def _leftover_note(self, count: int) -> bytes:
        what = "a process" if count == 1 else f"{count} processes"
        note = f"3ox: the command ended and left {what} running; stopped.\n".encode()
        if self._streams is not None:
            self._streams.write("err", note)
        return note

    def _until_ended(
        self, popen: subprocess.Popen[bytes], pipes: ChildPipes, started: float
    ) -> Generator[Piece]:
        """Read until the child ends, its timeout expires, or its job is interrupted."""
        deadline = math.inf if self._timeout_s is None else started + self._timeout_s
        while popen.poll() is None and not self._is_interrupted():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._timed_out = True
                return
            yield from pipes.read(None if left_s == math.inf else left_s)

    def _start(self) -> subprocess.Popen[bytes]:
        # Unlike Path.is_dir, this returns False for every path that cannot be examined.
        if not os.path.isdir(self._cwd):  # noqa: PTH112
            raise JobRefused(
                f"The directory {str(self._cwd)!r} does not exist.",
                remedy="Create it, or use another directory.",
            )
        try:
            return subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE if self._has_stdin() else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._explain(error)

    def _has_stdin(self) -> bool:
        return self._stdin != b"" or (self._streams is not None and self._streams.has_input)

    def _explain(self, error: OSError | ValueError) -> NoReturn:
        program = self._argv[0]
        if isinstance(error, OSError) and error.errno in _NO_RESOURCES:
            raise JobParked(
                f"The program {program!r} could not be started: {error.strerror}.",
                after_s=_RESOURCES_WAIT_S,
                limit_s=_RESOURCES_WAIT_MAX_S,
                remedy="Raise the worker's limits (ulimit -n, ulimit -u), or run fewer threads.",
            ) from error
        if isinstance(error, PermissionError) and str(error.filename) == str(self._cwd):
            raise JobRefused(
                f"The directory {str(self._cwd)!r} is not accessible.",
                remedy="Grant the worker's user access to it, or use another directory.",
            ) from error
        raise not_started(self._argv, error) from error


def not_started(argv: Sequence[str], error: OSError | ValueError) -> CommandNotStarted:
    """Return the failure of a program that could not be started.

    Its exit status is the one that a shell shows: 127 if the program was not found, 126 if it was found and
    cannot be executed.
    """
    program = argv[0]
    if isinstance(error, FileNotFoundError) and not os.path.lexists(program):
        remedy = "Check its name and the PATH of the worker."
        if len(argv) == 1 and _SHELL_SYNTAX.search(program):
            remedy = f"No shell interprets the command; for a command line write: {shell_form(program)}"
        return CommandNotStarted(f"The program {program!r} does not exist.", remedy, exit_status=127)
    if isinstance(error, FileNotFoundError):
        message = f"The interpreter of the script {program!r} does not exist."
        return CommandNotStarted(message, "Correct its first line.", exit_status=126)
    if isinstance(error, PermissionError):
        return CommandNotStarted(
            f"The program {program!r} is not executable.",
            "Make it executable, and its directory and interpreter accessible.",
            exit_status=126,
        )
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        return CommandNotStarted(
            f"The arguments of {program!r} are too long for the kernel.",
            "Pass long texts on standard input or in a file.",
            exit_status=126,
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return CommandNotStarted(
        f"The program {program!r} cannot be run: {reason}.", "Correct the command.", exit_status=126
    )


def shell_form(line: str) -> str:
    """Return how ``3ox`` runs a command line with a shell."""
    return f"3ox sh -- sh -c {shlex.quote(line)}"


def _exit_of(code: int, duration_s: float) -> ChildExit:
    if code >= 0:
        return ChildExit(exit_status=code, signal=None, duration_s=round(duration_s, 3))
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return ChildExit(exit_status=_SIGNALLED_STATUS - code, signal=name, duration_s=round(duration_s, 3))
