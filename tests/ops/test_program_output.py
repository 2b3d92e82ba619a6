"""Lines out of a byte stream, and what they mean."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ops.supervision.program import LineSplitter, OutputLine, parse_line


@given(st.lists(st.text(alphabet="ab \u00e9", min_size=1).filter(str.strip)), st.data())
def test_lines_survive_any_cutting(lines: list[str], data: st.DataObject) -> None:
    """However the stream is cut into pieces, the same lines come out."""
    stream = "".join(line + "\n" for line in lines).encode()
    splitter, got = LineSplitter(), []
    while stream:
        size = data.draw(st.integers(min_value=1, max_value=len(stream)))
        got += splitter.feed(stream[:size])
        stream = stream[size:]
    assert got + splitter.feed(b"") == lines


def test_long_lines_are_cut() -> None:
    """A program that writes no line ends does not fill our memory."""
    splitter = LineSplitter(max_bytes=10)
    assert splitter.feed(b"x" * 25) == ["x" * 10, "x" * 10]
    assert splitter.feed(b"") == ["x" * 5]
    assert splitter.feed(b"y" * 25 + b"\nz") == ["y" * 10, "y" * 10, "y" * 5]
    assert splitter.feed(b"") == ["z"]


def test_severity() -> None:
    """Dramatiq's and Valkey's own marks are understood, anything else is information."""
    assert parse_line("1:C 21 Nov 2026 22:00:00.000 * Ready") == OutputLine("info", "Ready")
    assert parse_line("Traceback (most recent call last):") == OutputLine(
        "info", "Traceback (most recent call last):"
    )
