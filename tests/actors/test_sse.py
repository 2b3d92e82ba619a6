"""Server-sent events, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.provider import ProviderUnavailable
from actors.llm.sse import EVENT_MAX_BYTES, EventParser

STREAM = (
    "\ufeff: a comment\n\n"
    "event: message\nid: 1\ndata: one\n\n"
    "data:two\ndata:  three\n\n"
    "data\n\n"
    "dataless: x\n\n"
    "data: wörld €\u2028\x85 😀\n\n"
    "data: [DONE]\n\n"
    "data: never finished"
)
EVENTS = ["one", "two\n three", "", "wörld €\u2028\x85 😀", "[DONE]"]


@given(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(1, 20), max_size=40))
def test_events_do_not_depend_on_line_ends_and_cuts(end: str, cuts: list[int]) -> None:
    """All three line ends, cut anywhere, yield the same events; an unfinished event is dropped."""
    data = STREAM.replace("\n", end).encode()
    parser = EventParser()
    found: list[str] = []
    at = 0
    for size in cuts:
        found += parser.feed(data[at : at + size])
        at += size
    found += parser.feed(data[at:])
    assert found == EVENTS


def test_an_endless_event_is_not_collected() -> None:
    """Neither one endless line nor endless lines of one event fill the memory."""
    for piece in (b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"):
        with pytest.raises(ProviderUnavailable, match="more than"):
            feed_for_ever(EventParser(), piece)


def feed_for_ever(parser: EventParser, piece: bytes) -> None:
    """Feed one piece again and again, a little longer than an event may be."""
    for _ in range(EVENT_MAX_BYTES // 1000 + 2):
        list(parser.feed(piece))
