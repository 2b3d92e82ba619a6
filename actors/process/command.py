"""Runs the command of a job; shared by ``shell.cmd`` and ``task.custom``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.context import StreamName, current_job, settings
from actors.process.child import Child, CommandFailed
from actors.process.output import OutputLimit, ProgressLines, Tail
from actors.process.results import CommandResult
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
    stdin: str | None = None,
    progress: bool = False,
) -> CommandResult:
    """Run a command to its end and stream its output to the job's output.

    Args:
        argv: Program and arguments.
        cwd: Working directory.
        env: Variables added to those that every command inherits.
        stdin: Text for its standard input.
        progress: Whether lines ``::progress NN message`` on its standard output are progress reports.

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
    )
    limit = OutputLimit(lambda text, stream: context.write(text, stream=stream), values.output_max_bytes)
    tails: dict[StreamName, Tail] = {"out": Tail(), "err": Tail()}

    def record(text: str, stream: StreamName) -> None:
        if text != "":
            tails[stream].write(text)
            limit.write(text, stream)

    lines = ProgressLines(_report) if progress else None
    try:
        with contextlib.closing(child.pieces()) as pieces:
            for stream, text in pieces:
                record(lines.feed(text) if lines is not None and stream == "out" else text, stream)
    finally:
        if lines is not None:
            record(lines.finish(), "out")
        limit.close()
    return _result(child, tails, truncated=limit.truncated)


def _report(percent: float, message: str) -> None:
    context = current_job()
    # While the command is being stopped, progress() would raise the interrupt a second time.
    if context.interrupt_requested is None:
        context.progress(percent, message)


def _result(child: Child, tails: Mapping[StreamName, Tail], *, truncated: bool) -> CommandResult:
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
