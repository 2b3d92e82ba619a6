"""Output limit and progress lines, however the text is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.process.output import NOTE_BYTES, OutputLimit, ProgressLines, Tail
from middleware.job.records import StreamName

Pieces = list[tuple[StreamName, str]]
TEXTS = st.text(alphabet=st.sampled_from("ab€\n😀"), max_size=40)
STREAMS: st.SearchStrategy[StreamName] = st.sampled_from(["out", "err"])


def limited(pieces: Pieces, limit_bytes: int) -> tuple[Pieces, bool]:
    """Send pieces through a limit and give what comes out."""
    passed: Pieces = []
    limit = OutputLimit(lambda text, stream: passed.append((stream, text)), limit_bytes)
    for stream, text in pieces:
        limit.write(text, stream)
    limit.close()
    return passed, limit.truncated


@given(st.lists(st.tuples(STREAMS, TEXTS), max_size=20), st.integers(1, 400))
def test_limit_passes_the_beginning_and_the_end(pieces: Pieces, limit_bytes: int) -> None:
    """What fits passes whole and in order; of what does not, a beginning and an end."""
    passed, truncated = limited(pieces, limit_bytes)
    room_bytes = max(limit_bytes - NOTE_BYTES, limit_bytes - limit_bytes // 2)
    total_bytes = sum(len(text.encode()) for _, text in pieces)
    assert truncated == (total_bytes > room_bytes)
    notes = [text for _, text in passed if text.startswith("3ox:")]
    assert len(notes) == int(truncated)
    kept = [(stream, text) for stream, text in passed if not text.startswith("3ox:")]
    assert sum(len(text.encode()) for _, text in kept) <= room_bytes
    characters = [(stream, letter) for stream, text in pieces for letter in text]
    shown = [(stream, letter) for stream, text in kept for letter in text]
    if not truncated:
        assert shown == characters
        return
    cut = next(index for index, (_, text) in enumerate(passed) if text.startswith("3ox:"))
    head = [(stream, letter) for stream, text in passed[:cut] for letter in text]
    end = [(stream, letter) for stream, text in passed[cut + 1 :] for letter in text]
    assert characters[: len(head)] == head
    assert characters[len(characters) - len(end) :] == end


def test_limit_passes_the_first_part_at_once() -> None:
    """Output within the first three quarters is written at once."""
    passed: Pieces = []
    limit = OutputLimit(lambda text, stream: passed.append((stream, text)), 100 + NOTE_BYTES)
    limit.write("a" * 75, "out")
    assert passed == [("out", "a" * 75)]
    limit.write("b", "out")
    assert passed == [("out", "a" * 75)]
    limit.close()
    assert passed[-1] == ("out", "b")


def test_limit_counts_the_line_about_what_is_missing() -> None:
    """The result, note included, fits into the same limit, however much is missing."""
    passed: Pieces = []
    limit = OutputLimit(lambda text, stream: passed.append((stream, text)), 10_000_000)
    for _ in range(3000):
        limit.write("x" * 65_536, "out")
    limit.close()
    assert sum(len(text) for _, text in passed) < 10_000_000


def test_tail_keeps_the_end() -> None:
    """Only the last characters stay."""
    tail = Tail(5)
    for piece in ("abc", "def", "", "gh"):
        tail.write(piece)
    assert str(tail) == "defgh"


LINES = st.lists(
    st.sampled_from(
        [
            "text",
            "",
            ":",
            "::",
            "::progress",
            "::progress ",
            "::progress x",
            "::progress 5",
            "::progress 7 a b",
            "::progress 8.5%\tc ",
            " ::progress 1",
            "x::progress 1",
            "::progressive 3",
            "::progress 9\r",
        ],
    ),
    max_size=12,
)
REPORTS = {
    "::progress 5": (5.0, ""),
    "::progress 7 a b": (7.0, "a b"),
    "::progress 8.5%\tc ": (8.5, "c"),
    "::progress 9\r": (9.0, ""),
}


@given(LINES, st.booleans(), st.lists(st.integers(1, 15), max_size=30))
def test_progress_lines_do_not_depend_on_the_cuts(lines: list[str], end: bool, cuts: list[int]) -> None:
    """However the text is cut, the same lines are reports and the rest is output."""
    text = "\n".join(lines) + ("\n" if end else "")
    reports: list[tuple[float, str]] = []
    parser = ProgressLines(lambda percent, message: reports.append((percent, message)))
    output = ""
    at = 0
    for size in cuts:
        output += parser.feed(text[at : at + size])
        at += size
    output += parser.feed(text[at:]) + parser.finish()
    whole = text.split("\n")
    kept = [line + "\n" for line in whole[:-1] if line not in REPORTS]
    kept += [whole[-1]] if whole[-1] not in REPORTS else []
    assert output == "".join(kept)
    assert reports == [REPORTS[line] for line in whole if line in REPORTS]


def test_a_partial_line_passes_unless_it_may_be_a_report() -> None:
    """A prompt is shown at once; the beginning of a report is not shown at all."""
    reports: list[float] = []
    parser = ProgressLines(lambda percent, _: reports.append(percent))
    assert parser.feed("name? ") == "name? "
    assert parser.feed("::progress 5\n") == "::progress 5\n"
    assert parser.feed("::pro") == ""
    assert parser.feed("gress 6") == ""
    assert reports == []
    assert parser.feed("0\n") == ""
    assert reports == [60.0]


def test_a_line_that_only_begins_like_a_report_is_not_kept_for_ever() -> None:
    """An endless line passes once it is too long for a report."""
    parser = ProgressLines(lambda _percent, _message: None)
    line = "::progress 5 " + "x" * 2000
    assert parser.feed(line) == line
