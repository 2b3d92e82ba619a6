"""The shell without a terminal: lines from a pipe or a file, answers on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ingress.cli.shared import note, signals_interrupt
from ingress.shell.history import LineHistory, history_file
from ingress.shell.shell import Leave, Shell
from ops.errors import UsageProblem
from ops.settings.load import LoadedSettings

#: A longer line is no command that somebody wrote.
LINE_MAX_BYTES = 1_048_576


INTERRUPTED = 130


def run_script(loaded: LoadedSettings, *, session: str | None) -> int:
    """Carry out the lines of stdin, in order, to its end or ``exit``.

    Args:
        loaded: The settings.
        session: Conversation to go on with.

    Returns:
        The exit code of the last line, as a shell gives it.
    """
    shell = Shell(loaded, LineHistory(history_file(loaded.workspace)), session=session, tell=note)
    code = 0
    with signals_interrupt():
        shell.open()
        try:
            for raw in _lines():
                code = shell.carry_out(raw.decode(errors="surrogateescape"))
                sys.stdout.flush()
                if code == INTERRUPTED:
                    break
        except Leave:
            pass
        finally:
            shell.close()
    return code


def _lines() -> Iterator[bytes]:
    """Read lines as they come; one that is too long is refused whole, its tail is no line of its own.

    Raises:
        UsageProblem: A line is too long.
    """
    while raw := sys.stdin.buffer.readline(LINE_MAX_BYTES + 1):
        if len(raw) > LINE_MAX_BYTES:
            raise UsageProblem(
                f"a line has more than {LINE_MAX_BYTES} bytes.", remedy="Hand it in with '3ox ask -'."
            )
        yield raw
