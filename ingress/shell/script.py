"""The shell without a terminal: lines from stdin, answers on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from ingress.core.run_and_follow import signals_interrupt
from ingress.core.terminal import note
from ingress.shell.history import LineHistory, history_file
from ingress.shell.shell import LeaveShell, Shell
from ops.errors import UsageProblem
from ops.settings.load import LoadedSettings

#: A longer line is refused.
LINE_MAX_BYTES = 1_048_576
#: Exit code of a line that was interrupted with Ctrl-C.
INTERRUPTED = 130


def run_script(
    loaded: LoadedSettings, *, session: str | None, run_command: Callable[[list[str]], int]
) -> int:
    """Run the lines of stdin in order, until its end or ``exit``.

    Args:
        loaded: The settings.
        session: Session to continue; the user's own by default.
        run_command: Runs a command line of ``3ox`` and returns its exit code; raises its errors.

    Returns:
        The exit code of the last line.
    """
    history = LineHistory(history_file(loaded.workspace))
    shell = Shell(loaded, history, session=session, announce=note, run_command=run_command)
    code = 0
    with signals_interrupt():
        shell.open()
        try:
            for raw in _lines():
                code = shell.run_line(raw.decode(errors="surrogateescape"))
                sys.stdout.flush()
                if code == INTERRUPTED:
                    break
        except LeaveShell:
            pass
        finally:
            shell.close()
    return code


def _lines() -> Iterator[bytes]:
    """Yield the lines of stdin as they arrive.

    Raises:
        UsageProblem: A line is too long; nothing of it is run.
    """
    while raw := sys.stdin.buffer.readline(LINE_MAX_BYTES + 1):
        if len(raw) > LINE_MAX_BYTES:
            raise UsageProblem(
                f"A line has more than {LINE_MAX_BYTES} bytes.", remedy="Submit it with '3ox ask -'."
            )
        yield raw
