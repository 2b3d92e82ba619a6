"""Write a job's output to the terminal."""

from __future__ import annotations

import sys

from ingress.core.text import safe
from middleware.job.records import OutputChunk, StreamName


class OutputWriter:
    """Writes a job's output: stdout to stdout, stderr to stderr, each piece at once.

    Args:
        raw: Let a terminal obey control sequences; otherwise they are escaped. Pipes and files always get the
            output unchanged.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._open_line = False

    def write(self, chunk: OutputChunk) -> None:
        """Write one piece.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
        """
        target = sys.stdout if chunk.stream == "out" else sys.stderr
        text = chunk.text if self._raw or not target.isatty() else safe(chunk.text)
        target.buffer.write(text.encode(errors="replace"))
        target.buffer.flush()
        if chunk.stream == "out" and text:
            self._open_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Write a line end to stdout unless the output ended with one."""
        if self._open_line:
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()
            self._open_line = False


class LocalReporter:
    """Shows the progress and output of a job that runs in this process; see ``middleware.context.Reporter``.

    Args:
        writer: Writes the output; None shows nothing.
    """

    def __init__(self, writer: OutputWriter | None) -> None:
        self._writer = writer

    def progress(self, percent: float, message: str) -> None:
        """Show progress on stderr, if that is a terminal."""
        if self._writer is not None and sys.stderr.isatty():
            sys.stderr.write(f"[{percent:3.0f}%] {safe(message)}\n")

    def output(self, text: str, stream: StreamName) -> None:
        """Show a piece of output."""
        if self._writer is not None:
            self._writer.write(OutputChunk("", stream, text))

    def flush(self) -> None:
        """Do nothing: no output is buffered."""

    def end_line(self) -> None:
        """Write a line end to stdout unless the output ended with one."""
        if self._writer is not None:
            self._writer.end_line()
