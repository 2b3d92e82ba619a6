"""Runs the command of a job; shared by ``shell.cmd`` and ``task.custom``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.context import StreamName, current_job, settings
from actors.process.child import Child, CommandFailed
from actors.process.output import ByteTail, OutputLimit, ProgressLines
from actors.process.results import CommandResult
from middleware.streams.attached import Attached
from ops.environment import selected


def inherited_env(*more: str) -> dict[str, str]:
    """Return the environment that commands inherit: the variables in ``shell_env``, and no others.

    Args:
        *more: Names of further variables.
    """
    names = (*settings().settings.shell_env, *more)
    return selected(names)


def run_command(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str | bytes | None = None,
    progress: bool = False,
    streams: Attached | None = None,
) -> CommandResult:
    """Run a command to its end and stream its output to the job's output.

    Args:
        argv: Program and arguments.
        cwd: Working directory.
        env: Variables added to those that every command inherits.
        stdin: Its standard input; empty when None.
        progress: Whether lines ``::progress NN message`` on its standard output are progress reports.
        streams: The caller that stdin comes from and the output is passed on to, byte for byte. What is kept
            for later, as text, is the same as without one.

    Raises:
        CommandFailed: Its exit status is not 0.
        JobRefused: It cannot be run.
        JobInterrupted: The job was cancelled or ran out of time; no process of the command is left.
    """
    context = current_job()
    values = settings().settings
    child = Child(
        argv,
        cwd=cwd,
        env={**inherited_env(), **env},
        kill_grace_s=values.kill_grace_s,
        stdin=stdin,
        streams=streams,
    )
    limit = OutputLimit(lambda text, stream: context.write(text, stream=stream), values.output_max_bytes)
    tails: dict[StreamName, ByteTail] = {"out": ByteTail(), "err": ByteTail()}

    def record(data: bytes, stream: StreamName) -> None:
        tails[stream].write(data)
        limit.write_bytes(data, stream)

    lines = ProgressLines(_report) if progress else None
    try:
        if lines is None:
            with contextlib.closing(child.output()) as pieces:
                for stream, data in pieces:
                    record(data, stream)
        else:
            with contextlib.closing(child.pieces()) as texts:
                for stream, text in texts:
                    record((lines.feed(text) if stream == "out" else text).encode(), stream)
    finally:
        if lines is not None:
            record(lines.finish().encode(), "out")
        limit.close()
    return _result(child, tails, truncated=limit.truncated)


def _report(percent: float, message: str) -> None:
    context = current_job()
    # While the command is being stopped, progress() would raise the interrupt a second time.
    if context.interrupt_requested is None:
        context.progress(percent, message)


def _result(child: Child, tails: Mapping[StreamName, ByteTail], *, truncated: bool) -> CommandResult:
    if child.exit is None:
        raise LookupError("the child has not ended")
    result = CommandResult(
        exit_status=child.exit.exit_status,
        signal=child.exit.signal,
        stdout_tail=str(tails["out"]),
        stderr_tail=str(tails["err"]),
        duration_s=child.exit.duration_s,
        truncated=truncated,
    )
    if result.signal is not None:
        raise CommandFailed(f"The command was ended by {result.signal}.", result=result)
    if result.exit_status != 0:
        # Without a sentence around it: lists and receipts show it as the reason.
        raise CommandFailed(f"exit status {result.exit_status}", result=result)
    return result
