"""Understand the lines that programs under the supervisor write, so that they keep their severity."""

from __future__ import annotations

import re
from typing import NamedTuple

#: ``dramatiq.cli.LOGFORMAT``: [time] [PID 1] [MainThread] [dramatiq.MainProcess] [INFO] text
_DRAMATIQ = re.compile(
    r"\[[^\]]*\] \[PID \d+\] \[[^\]]*\] \[(?P<logger>[^\]]*)\] \[(?P<level>[A-Z]+)\] (?P<text>.*)"
)
#: Valkey and Redis: 123:M 21 Nov 2026 22:00:00.000 * text
_VALKEY = re.compile(r"\d+:[A-Z] \d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3} (?P<mark>[.\-*#]) (?P<text>.*)")
_VALKEY_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "critical"}


class OutputLine(NamedTuple):
    """A line, its severity as a level of ``logging`` in lower case, and who wrote it inside the program."""

    level: str
    text: str
    logger: str | None = None


def parse_line(line: str) -> OutputLine:
    """Read a line of Dramatiq's master or of the store; any other one is of level ``info`` as it stands."""
    found = _DRAMATIQ.fullmatch(line)
    if found is not None:
        return OutputLine(_LEVELS.get(found["level"], "info"), found["text"], found["logger"])
    found = _VALKEY.fullmatch(line)
    if found is not None:
        return OutputLine(_VALKEY_LEVELS[found["mark"]], found["text"])
    return OutputLine("info", line)


class LineSplitter:
    """Cuts a byte stream into lines; a line longer than ``max_bytes`` is cut too."""

    def __init__(self, max_bytes: int = 16_384) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take a piece of the stream, an empty one at its end; give the lines that are complete now."""
        *whole, rest = (self._rest + data).split(b"\n")
        pieces = [piece for line in whole for piece in self._cut(line)]
        *more, self._rest = self._cut(rest)
        pieces += more
        if not data:
            pieces.append(self._rest)
            self._rest = b""
        return [piece.decode(errors="replace").rstrip("\r") for piece in pieces if piece.strip()]

    def _cut(self, line: bytes) -> list[bytes]:
        ends = range(0, max(1, len(line)), self._max_bytes)
        return [line[start : start + self._max_bytes] for start in ends]
