"""What happens to the output of a command on its way to the job: limit, tail, progress lines."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from middleware.job.records import StreamName

Write = Callable[[str, StreamName], None]

#: Characters of each stream that a result keeps: enough for the last error, small beside the output itself.
TAIL_CHARS = 2048
#: Room for the line that says what is missing.
NOTE_BYTES = 100
#: Small pieces of the held-back end are joined up to this size, so that a trickle does not cost memory.
_JOIN_BYTES = 4096

_PROGRESS_MARK = "::progress "
_PROGRESS = re.compile(r"::progress +(\d+(?:\.\d+)?)%?(?:[ \t]+(.*?))?\s*")
#: A line that begins like a report and is longer than this is taken for output.
_PROGRESS_MAX_CHARS = 1024


class OutputLimit:
    """Passes on the first part of a job's output at once, and the last part when it ends.

    Three quarters of the room go through as they come. What follows is held back, and of it the last quarter
    of the room is passed on by ``close``, after one line on ``err`` that says how much is missing if anything
    is. Both streams share the room, so that their order stays as it was.

    Parameters:
        write: Takes what is passed on.
        limit_bytes: Bound on what is passed on, that line included, in bytes of UTF-8. The room is what is
            left beside the line, and at least half of the limit.
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
        """Whether something has been dropped."""
        return self._dropped_bytes > 0

    def write(self, text: str, stream: StreamName) -> None:
        """Take a piece of output."""
        data = text.encode("utf-8", "replace")
        if len(data) <= self._head_left_bytes:
            self._head_left_bytes -= len(data)
            self._write(text, stream)
            return
        if self._head_left_bytes > 0:
            # Cut between characters: the rest of a cut one belongs to the part that is held back.
            first = data[: self._head_left_bytes].decode("utf-8", "ignore")
            data = data[len(first.encode()) :]
            self._end_bytes += self._head_left_bytes - len(first.encode())
            self._head_left_bytes = 0
            if first != "":
                self._write(first, stream)
        self._hold(data, stream)

    def close(self) -> None:
        """Pass on what was held back."""
        if self._dropped_bytes > 0:
            note = f"3ox: {self._dropped_bytes} bytes of output left out here (limit {self._limit_bytes}).\n"
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
        limit_chars: How much of it.
    """

    def __init__(self, limit_chars: int = TAIL_CHARS) -> None:
        self._limit_chars = limit_chars
        self._text = ""

    def write(self, text: str) -> None:
        """Take a piece."""
        self._text = (self._text + text)[-self._limit_chars :]

    def __str__(self) -> str:
        return self._text


class ProgressLines:
    """Lifts lines ``::progress NN message`` out of a text that comes in pieces.

    Everything else passes at once, partial lines too, unless a line so far could still become a report.

    Parameters:
        report: Takes percent and message of each report.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self._report = report
        self._held = ""
        self._in_line = False

    def feed(self, piece: str) -> str:
        """Take a piece and give what of it is output."""
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
        """Give what was held back, if it is no report: the text has ended."""
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
