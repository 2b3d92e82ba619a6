"""ModelServer-sent events: from pieces of a byte stream to the data of each event.

After the WHATWG HTML standard, "ModelServer-sent events", of which the data field is all that is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator

from actors.llm.provider import ProviderUnavailable

#: One event of a language model is a few hundred bytes; a stream that has sent this much without an
#: end of event is none, and would otherwise grow in memory for ever.
EVENT_MAX_BYTES = 1_048_576
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Takes bytes as they come and gives the data of every event that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """Take a piece.

        Args:
            piece: Any number of bytes; may end in the middle of a line or of a character.

        Yields:
            The data of each event that is complete now.

        Raises:
            ProviderUnavailable: An event is longer than ``EVENT_MAX_BYTES``.
        """
        for line in self._lines(piece):
            if line == b"":
                if self._data:
                    yield b"\n".join(self._data).decode("utf-8", "replace")
                    self._data, self._data_bytes = [], 0
                continue
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._data_bytes += len(value)
            self._check_size()

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        # A CR at the end of the last piece has ended its line already: an LF that follows belongs to it.
        if self._after_cr and piece != b"":
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        lines = (self._rest + piece).splitlines(keepends=True)
        self._rest = b""
        if lines and not lines[-1].endswith((b"\n", b"\r")):
            self._rest = lines.pop()
            self._check_size()
        elif lines:
            self._after_cr = lines[-1].endswith(b"\r")
        for line in lines:
            text = line.rstrip(b"\r\n")
            if self._at_start:
                text = text.removeprefix(_BOM)
                self._at_start = False
            yield text

    def _check_size(self) -> None:
        if len(self._rest) + self._data_bytes > EVENT_MAX_BYTES:
            raise ProviderUnavailable(
                f"the answer holds an event of more than {EVENT_MAX_BYTES} bytes.",
                remedy="Check that the base URL names an OpenAI-compatible server.",
            )
