"""Processing of a command's output: size limit, tail, and progress lines."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from middleware.job.records import StreamName

Write = Callable[[str, StreamName], None]

#: Characters of each stream (its end) that a result keeps.
TAIL_CHARS = 2048
#: Bytes reserved for the line that reports what is missing.
NOTE_BYTES = 100
#: Size up to which small buffered pieces are joined, to bound the memory per piece.
_JOIN_BYTES = 4096

_PROGRESS_MARK = "::progress "
_PROGRESS = re.compile(r"::progress +(\d+(?:\.\d+)?)%?(?:[ \t]+(.*?))?\s*")
#: Longer lines are never progress reports.
_PROGRESS_MAX_CHARS = 1024


class OutputLimit:
    """Limits a job's output: the beginning is written at once, the end when the output is complete.

    The first three quarters of the limit are written as they arrive. Of what follows, the last quarter is
    buffered and written by ``close``, after a line on ``err`` that reports how much is missing, if anything.
    Both streams share the limit, so that their order is kept.

    Parameters:
        write: Receives the output.
        limit_bytes: Maximum size of the output including that line, in bytes of UTF-8.
    """

    def __init__(self, write: Write, limit_bytes: int) -> None:
        self._write = write
        self._limit_bytes = limit_bytes
        room_bytes = limit_bytes - min(NOTE_BYTES, limit_bytes // 2)
        self._end_bytes = room_bytes // 4
        self._head_left_bytes = room_bytes - self._end_bytes
        self._held: deque[tuple[StreamName, bytes]] = deque()
        self._held_bytes = 0
        self._dropped_bytes = 0

    @property
    def truncated(self) -> bool:
        """Whether output was dropped."""
        return self._dropped_bytes > 0

    def write(self, text: str, stream: StreamName) -> None:
        """Write a piece of output."""
        data = text.encode("utf-8", "replace")
        if len(data) <= self._head_left_bytes:
            self._head_left_bytes -= len(data)
            self._write(text, stream)
            return
        if self._head_left_bytes > 0:
            # Cut between characters: the rest belongs to the buffered part.
            first = data[: self._head_left_bytes].decode("utf-8", "ignore")
            data = data[len(first.encode()) :]
            self._end_bytes += self._head_left_bytes - len(first.encode())
            self._head_left_bytes = 0
            if first != "":
                self._write(first, stream)
        self._hold(data, stream)

    def close(self) -> None:
        """Write the buffered end."""
        if self._dropped_bytes > 0:
            note = f"3ox: {self._dropped_bytes} bytes of output omitted here (limit {self._limit_bytes}).\n"
            self._write(note, "err")
        while self._held:
            stream, data = self._held.popleft()
            text = data.decode("utf-8", "ignore")
            if text != "":
                self._write(text, stream)
        self._held_bytes = 0

    def _hold(self, data: bytes, stream: StreamName) -> None:
        self._held_bytes += len(data)
        if self._held and self._held[-1][0] == stream and len(self._held[-1][1]) < _JOIN_BYTES:
            data = self._held.pop()[1] + data
        self._held.append((stream, data))
        while self._held_bytes > self._end_bytes:
            excess = self._held_bytes - self._end_bytes
            oldest_stream, oldest = self._held.popleft()
            dropped = min(excess, len(oldest))
            if dropped < len(oldest):
                self._held.appendleft((oldest_stream, oldest[dropped:]))
            self._held_bytes -= dropped
            self._dropped_bytes += dropped


class Tail:
    """Keeps the end of a text.

    Parameters:
        limit_chars: Number of characters to keep.
    """

    def __init__(self, limit_chars: int = TAIL_CHARS) -> None:
        self._limit_chars = limit_chars
        self._text = ""

    def write(self, text: str) -> None:
        """Append a piece."""
        self._text = (self._text + text)[-self._limit_chars :]

    def __str__(self) -> str:
        return self._text


class ProgressLines:
    """Extracts lines ``::progress NN message`` from a text that arrives in pieces.

    All other text is returned at once, except the beginning of a line that may become a report.

    Parameters:
        report: Called with percent and message of each report.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self._report = report
        self._held = ""
        self._in_line = False

    def feed(self, piece: str) -> str:
        """Add a piece and return the output in it."""
        output: list[str] = []
        lines = (self._held + piece).split("\n")
        self._held = ""
        for line in lines[:-1]:
            if self._in_line or not self._is_report(line):
                output.append(line + "\n")
            self._in_line = False
        last = lines[-1]
        if not self._in_line and self._may_become_report(last):
            self._held = last
        elif last != "":
            output.append(last)
            self._in_line = True
        return "".join(output)

    def finish(self) -> str:
        """Return the buffered rest at the end of the text, unless it is a report."""
        held, self._held = self._held, ""
        return "" if self._is_report(held) else held

    def _is_report(self, line: str) -> bool:
        found = _PROGRESS.fullmatch(line)
        if found is None:
            return False
        self._report(float(found[1]), found[2] or "")
        return True

    @staticmethod
    def _may_become_report(start: str) -> bool:
        if start == "" or len(start) > _PROGRESS_MAX_CHARS:
            return False
        return start.startswith(_PROGRESS_MARK) or _PROGRESS_MARK.startswith(start)
