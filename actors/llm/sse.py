"""Parser for server-sent events, as in the WHATWG HTML standard; only the data field is used."""

from __future__ import annotations

from collections.abc import Iterator

from actors.llm.provider import ProviderUnavailable

#: Maximum size of an event; a typical one is a few hundred bytes. Bounds the memory for a broken stream.
EVENT_MAX_BYTES = 1_048_576
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Parses a byte stream in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """Add a piece and yield the data of each event that it completes.

        Args:
            piece: Any number of bytes; may end within a line or a character.

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
        # A CR at the end of the last piece has ended its line; an LF that follows belongs to it.
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
                f"The answer contains an event of more than {EVENT_MAX_BYTES} bytes.",
                remedy="Check that the base URL belongs to a model server.",
            )
