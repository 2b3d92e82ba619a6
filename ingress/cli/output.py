"""A job's output on its way to the terminal."""

from __future__ import annotations

import sys

from ingress.cli.render import safe
from middleware.job.records import OutputChunk


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
