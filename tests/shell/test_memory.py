"""What a question gets from its session: limited context, and answers from the record itself."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.memory import count_tokens, within
from actors.llm.session_questions import answer_session_question, is_session_question
from middleware.job.sessions import SessionFacts, SessionMessage
from tests.cli.support import Cli


def message(role: str, text: str, job_id: str = "j") -> SessionMessage:
    """Return a message."""
    at = "2026-01-02T03:04:05.678Z"
    return SessionMessage(job_id=job_id, role="user" if role == "user" else "assistant", at=at, text=text)


def turns(*pairs: tuple[str, str]) -> list[SessionMessage]:
    """Return a conversation of questions and answers."""
    return [part for ask, said in pairs for part in (message("user", ask), message("assistant", said))]


def said(kept: list[SessionMessage], limit: int) -> list[str]:
    """Return the texts that are sent along within a limit."""
    return [item.content for item in within(kept, limit)]


def test_the_end_of_the_conversation_goes_along() -> None:
    """Whole turns from the end, as many as fit, in order."""
    kept = turns(("one", "1" * 400), ("two", "2"), ("three", "3"))
    assert said(kept, 10_000) == ["one", "1" * 400, "two", "2", "three", "3"]
    assert said(kept, 50) == ["two", "2", "three", "3"]
    assert said(kept, 0) == []


def test_a_turn_that_is_too_long_is_cut() -> None:
    """If the last turn alone exceeds the limit, its beginnings are sent along."""
    [question, answer] = within(turns(("why", "because " * 1000)), 100)
    assert question.content == "why"
    assert answer.content.startswith("because ")
    assert count_tokens(answer.content) <= 50


@given(
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=8),
    st.integers(0, 200),
    st.booleans(),
)
def test_context_is_bounded_and_begins_with_a_question(
    pairs: list[tuple[str, str]], limit: int, half: bool
) -> None:
    """Whatever the texts are, and also if the first question has been dropped."""
    kept = turns(*pairs)
    given_along = within(kept[1:] if half else kept, limit)
    assert sum(count_tokens(item.content) for item in given_along) <= limit
    assert [item.role for item in given_along] == ["user", "assistant"] * (len(given_along) // 2)


@pytest.mark.parametrize(
    "prompt",
    [
        "what were we talking about?",
        "What were we talking about",
        "Sorry, what were we just talking about?",
        "what have we been discussing so far?",
        "What did we talk about?",
        "what is this conversation about?",
        "Do you remember what we talked about?",
        "remind me what we were talking about please",
        "Where were we?",
        "What did I just ask you?",
        "what was my last question?",
        "what was your last answer?",
        "How many messages are there in this session?",
        "how many questions have I asked so far?",
    ],
)
def test_questions_about_the_session_are_recognized(prompt: str) -> None:
    """They need no model."""
    assert is_session_question(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "what were they talking about?",
        "what are we going to do about the build?",
        "What did we talk about in the meeting of the board, and who was there?",
        "what is this about?",
        "how many messages are there in a Kafka partition?",
        "where were we in 1998?",
        "what were we talking about? " + "Write an essay on it. " * 10,
        "translate: what were we talking about",
        "",
    ],
)
def test_other_questions_go_to_a_model(prompt: str) -> None:
    """A question that only begins like one about the session is not answered from it."""
    assert not is_session_question(prompt)


def test_the_answer_has_counts_times_and_the_last_messages() -> None:
    """With the number of earlier ones, and a text for an empty session."""
    kept = turns(*((f"question {n}", f"answer\n{n} " + "x" * 500) for n in range(5)))
    facts = SessionFacts(
        session_id="s1",
        messages=12,
        kept=10,
        began_at="2026-01-01T00:00:00.000Z",
        last_at="2026-01-02T03:04:05.678Z",
        expires_s=5.0,
    )
    text = answer_session_question("s1", facts, kept)
    assert "12 messages, from 2026-01-01 00:00:00 to 2026-01-02 03:04:05 (UTC). The last 10 are kept." in text
    assert "5 questions in them and got 5 answers" in text
    assert "(4 earlier ones are shown by '3ox sessions show s1'.)" in text
    assert "[2026-01-02 03:04:05] you: question 4\n" in text
    assert "question 1" not in text
    assert max(map(len, text.splitlines())) < 300
    assert "Nothing yet" in answer_session_question("s1", None, [])


def test_a_conversation_through_the_command_line(bridge: Cli) -> None:
    """Context is sent along, the record answers questions about itself, and list, show and clear work."""
    session = f"s{uuid.uuid4().hex[:8]}"
    first = bridge("ask", "--session", session, "the sky")
    assert first.out == "You asked: the sky \n", first.err
    second = bridge("ask", "--session", session, "and the sea", "--json").json
    assert "User: the sky" in second["result"]["text"], second
    assert "Assistant: You asked: the sky" in second["result"]["text"]
    assert second["session_id"] == session

    about = bridge("ask", "--session", session, "What were we talking about?", "--json").json
    assert about["status"] == "completed"
    assert about["result"]["provider"] == "session"
    assert f"Session {session} has 4 messages" in about["result"]["text"]
    assert "you: the sky" in about["result"]["text"]

    shown = bridge("sessions", "show", session, "--json").json
    assert [item["text"] for item in shown["messages"][::2]] == ["the sky", "and the sea"]
    assert shown["messages"][2]["job_id"] == second["job_id"]
    assert shown["messages"][0]["source"] == "cli"
    listed = bridge("sessions", "--json").json["sessions"]
    assert [item["messages"] for item in listed if item["session_id"] == session] == [4]
    assert session in bridge("sessions", "list").out
    assert "you (job" in bridge("sessions", "show", session).out

    assert bridge("sessions", "clear", session, "--json").json["cleared"] == [
        {"session_id": session, "messages": 4}
    ]
    assert bridge("sessions", "show", session).code == 4
    assert bridge("sessions", "clear", session).code == 4
    assert bridge("sessions", "clear").code == 2
    fresh = bridge("ask", "--session", session, "how many messages are there?")
    assert fresh.out == f"Nothing yet: session {session} has no messages.\n"


def test_a_failed_question_is_not_remembered(bridge: Cli) -> None:
    """A question without an answer is not a turn."""
    session = f"s{uuid.uuid4().hex[:8]}"
    assert bridge("ask", "--session", session, "fail").code == 1
    assert bridge("sessions", "show", session).code == 4


def test_without_a_store_the_session_is_said_to_be_missing(storeless: Cli) -> None:
    """The question is answered nevertheless."""
    asked = storeless("ask", "--session", "s1", "the sky")
    assert asked.code == 0
    assert asked.out.startswith("You asked: the sky")
    assert "answering without the session 's1'" in asked.err
    assert json.loads(storeless("ask", "--session", "s1", "the sky", "--json").out)["session_id"] == "s1"
    assert storeless("sessions").code == 3
