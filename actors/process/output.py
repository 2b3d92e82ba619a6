"""Processing of a command's output: size limit, tail, and progress lines."""

from __future__ import annotations

import codecs
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
#: Maximum length of a character in UTF-8.
_CHARACTER_BYTES = 4

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
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {}

    @property
    def truncated(self) -> bool:
        """Whether output was dropped."""
        return self._dropped_bytes > 0

    def write_bytes(self, data: bytes, stream: StreamName) -> None:
        """Write a piece of output that may end within a character; what is not UTF-8 is replaced.

        Beyond the beginning bytes are only moved: decoding gigabytes of which little is kept takes too long.
        """
        decoder = self._decoders.get(stream)
        if self._head_left_bytes > 0:
            if decoder is None:
                decoder = self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
            # As text it takes at most three times as much.
            first, data = data[: self._head_left_bytes], data[self._head_left_bytes :]
            text = decoder.decode(first)
            if text != "":
                self.write(text, stream)
        if data != b"":
            if decoder is not None:
                data = decoder.getstate()[0] + data
                decoder.reset()
            self._hold(data, stream)

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
        for stream, decoder in self._decoders.items():
            if text := decoder.decode(b"", final=True):
                self.write(text, stream)
        kept = self._decode_held()
        if self._dropped_bytes > 0:
            note = f"3ox: {self._dropped_bytes} bytes of output omitted here (limit {self._limit_bytes}).\n"
            self._write(note, "err")
        for stream, text in kept:
            self._write(text, stream)

    def _decode_held(self) -> list[tuple[StreamName, str]]:
        """Return the buffered end as text of at most its size; it begins with a whole character."""
        pieces: deque[tuple[StreamName, str]] = deque()
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name, _ in self._held}
        size_bytes, is_cut = 0, self._dropped_bytes > 0
        while self._held:
            stream, data = self._held.popleft()
            if is_cut:
                data, is_cut = data[_continuation_bytes(data) :], False
            text = decoders[stream].decode(data, final=all(name != stream for name, _ in self._held))
            if text != "":
                pieces.append((stream, text))
                size_bytes += len(text.encode("utf-8", "replace"))
            while size_bytes > self._end_bytes:
                name, oldest = pieces.popleft()
                excess = size_bytes - self._end_bytes
                shorter = oldest.encode("utf-8", "replace")[excess:].decode("utf-8", "ignore")
                size_bytes -= len(oldest.encode("utf-8", "replace")) - len(shorter.encode())
                self._dropped_bytes += len(oldest) - len(shorter)
                if shorter != "":
                    pieces.appendleft((name, shorter))
        self._held_bytes = 0
        return list(pieces)

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


def _continuation_bytes(data: bytes) -> int:
    """Return the number of bytes at the start that continue a character of UTF-8."""
    count = 0
    while count < min(len(data), _CHARACTER_BYTES - 1) and data[count] & 0xC0 == 0x80:  # noqa: PLR2004 (UTF-8)
        count += 1
    return count


class ByteTail:
    """Keeps the end of a text that arrives as bytes.

    Parameters:
        limit_chars: Number of characters to keep.
    """

    def __init__(self, limit_chars: int = TAIL_CHARS) -> None:
        self._limit_chars = limit_chars
        self._limit_bytes = _CHARACTER_BYTES * limit_chars
        self._data = b""

    def write(self, data: bytes) -> None:
        """Append a piece."""
        self._data = (self._data + data[-self._limit_bytes :])[-self._limit_bytes :]

    def __str__(self) -> str:
        start = _continuation_bytes(self._data) if len(self._data) == self._limit_bytes else 0
        return self._data[start:].decode("utf-8", "replace")[-self._limit_chars :]


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
