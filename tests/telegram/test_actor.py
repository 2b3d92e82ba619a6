"""The job type ``telegram``: like ``ask``, with a message as the question."""

from __future__ import annotations

from tests.actors.conftest import Configure, configure, openai, plain
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI

__all__ = ["configure", "openai", "plain"]


def test_a_message_is_answered_as_a_question(configure: Configure, openai: FakeOpenAI) -> None:
    """The provider gets the text of the message, and the answer is streamed and returned."""
    configure()
    run = JobRun("telegram", {"chat_id": 42, "text": "what is new"}, source="telegram")
    result = run.run()
    assert (result.text, result.provider) == ("what is new", "openai")
    assert run.reporter.text("out") == "what is new"
    assert [message["content"] for message in openai.requests[0].body["messages"]] == ["what is new"]
