"""A job's output on its way to the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ingress.core.text import safe
from middleware.job.records import OutputChunk

if TYPE_CHECKING:
    from middleware.context import StreamName


class OutputWriter:
    """Writes a job's output: stdout to stdout, stderr to stderr, at once.

    Args:
        raw: Pass it to a terminal as it is; otherwise control characters are shown, not obeyed. What goes
            into a pipe or a file is always as it is.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._open_line = False

    def write(self, chunk: OutputChunk) -> None:
        """Write one piece.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        target = sys.stdout if chunk.stream == "out" else sys.stderr
        text = chunk.text if self._raw or not target.isatty() else safe(chunk.text)
        target.buffer.write(text.encode(errors="replace"))
        target.buffer.flush()
        if chunk.stream == "out" and text:
            self._open_line = not text.endswith("\n")

    def end_line(self) -> None:
        """End the line that stdout stands in, if it stands in one."""
        if self._open_line:
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()
            self._open_line = False


class LocalReporter:
    """Takes what a job reports that runs in this process; see ``middleware.context.Reporter``.

    Args:
        writer: Shows its output; None shows none.
    """

    def __init__(self, writer: OutputWriter | None) -> None:
        self._writer = writer

    def progress(self, percent: float, message: str) -> None:
        """Show progress on standard error, if somebody looks."""
        if self._writer is not None and sys.stderr.isatty():
            sys.stderr.write(f"[{percent:3.0f}%] {safe(message)}\n")

    def output(self, text: str, stream: StreamName) -> None:
        """Show a piece of output at once."""
        if self._writer is not None:
            self._writer.write(OutputChunk("", stream, text))

    def flush(self) -> None:
        """Nothing is held back."""

    def end_line(self) -> None:
        """End the line that stdout stands in, if it stands in one."""
        if self._writer is not None:
            self._writer.end_line()
