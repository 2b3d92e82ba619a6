"""Text and file names: pure functions, by property."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingress.core.drop_folder import received_name
from ingress.core.status_report import QUEUE_STATES
from ingress.demo.bot_api import units as counted
from ingress.telegram.message_text import MESSAGE_MAX_UNITS, PARTS_MAX, head, split, tail, units
from ingress.telegram.messages import bridge_state

TEXTS = st.text(
    st.one_of(st.sampled_from(" \n\t😀é"), st.characters(exclude_categories=["Cs"])), max_size=400
)


def test_the_state_of_the_bridge_counts_in_good_grammar() -> None:
    """Singular and plural."""
    worker = {"healthy": True, "processing": ["a"]}
    state = {
        "store": {"latency_ms": 0.5},
        "queue": dict.fromkeys(QUEUE_STATES, 0),
        "workers": [worker],
        "daemons": [],
        "spool": {"jobs": 1},
    }
    said = bridge_state(state).splitlines()
    assert "workers: 1 of 1 healthy, 1 job running" in said
    assert "spool: 1 job" in said
    assert "2 jobs running" in bridge_state({**state, "workers": [worker, worker]})


@given(TEXTS)
def test_units_are_those_of_utf_16(text: str) -> None:
    """Two ways of counting agree."""
    assert units(text) == counted(text)


@given(TEXTS, st.integers(2, 60))
def test_head_and_tail_are_the_longest_that_fit(text: str, limit: int) -> None:
    """They fit, and one more letter would not."""
    for part, longer in ((head(text, limit), text[: len(head(text, limit)) + 1]), (tail(text, limit), None)):
        assert units(part) <= limit
        if longer is not None and longer != part:
            assert units(longer) > limit
    assert text.startswith(head(text, limit))
    assert text.endswith(tail(text, limit))


@given(TEXTS, st.integers(20, 60))
def test_parts_fit_and_lose_nothing_but_space(text: str, limit: int) -> None:
    """Each part fits and is not blank; together they are the text."""
    parts = split(text, limit)
    assert all(0 < units(part) <= limit for part in parts)
    assert all(part == part.strip() for part in parts)
    if text.strip() and len(parts) < PARTS_MAX:
        assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_text_is_cut_between_words() -> None:
    """A part ends at the end of a line or word near the limit."""
    assert split("aaa bbb ccc ddd eee", 12) == ["aaa bbb ccc", "ddd eee"]
    assert split("aaa bbb\nc c ddd", 10) == ["aaa bbb\nc", "c ddd"]
    assert split("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_an_endless_text_is_bounded() -> None:
    """It becomes at most 20 messages; the last one says that it was cut."""
    parts = split("word " * 100_000)
    assert len(parts) == PARTS_MAX
    assert parts[-1].endswith("[cut here]")
    assert all(units(part) <= MESSAGE_MAX_UNITS for part in parts)


def test_a_blank_text_says_so() -> None:
    """Telegram refuses empty messages."""
    assert split(" \n ") == ["(empty)"]


@given(st.text(max_size=300))
def test_names_are_harmless(given_name: str) -> None:
    """For any name: no path, not hidden, no control characters, short, never empty."""
    name = received_name(given_name, "telegram")
    assert name
    assert not set("/\\\0\n\x7f") & set(name)
    assert name[0] not in ". "
    assert len(name.encode()) <= 210


def test_ordinary_names_are_kept() -> None:
    """An ordinary name stays the same."""
    for name in ("report.pdf", "Übersicht 2026.xlsx", "archive.tar.gz", "README"):
        assert received_name(name, "telegram") == name
    assert received_name("..", "telegram") == "telegram-file"
    assert received_name("C:\\temp\\evil.exe", "telegram") == "evil.exe"
    assert received_name("../../.ssh/authorized_keys", "telegram") == "authorized_keys"
