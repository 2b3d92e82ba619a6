"""Decisions: bound to a schema on every protocol, checked, repaired once."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from actors.context import current_job
from actors.llm.provider_selection import NoProvider
from actors.llm.structured_answer import InvalidAnswer, StructuredAnswer, ask_structured, schema_of
from middleware.context import set_current_job
from ops.errors import JobRefused
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, answers, refuses

pytestmark = pytest.mark.usefixtures("no_provider")


class Link(Struct):
    """Part of a verdict."""

    to: str


class Verdict(Struct, forbid_unknown_fields=True):
    """What is decided in these tests."""

    action: Literal["keep", "drop"]
    reason: Annotated[str, Meta(max_length=20)] = ""
    links: list[Link] = []


def run(prompt: str = "Keep it?", *, system: str | None = None) -> StructuredAnswer[Verdict]:
    """Decide within a job, as an actor does."""
    made = JobRun("ask", {"prompt": "-"})
    set_current_job(made.context)
    try:
        found = ask_structured(Verdict, prompt, system=system)
        assert current_job() is made.context
        assert made.reporter.text("out") == ""
        return found
    finally:
        set_current_job(None)


def test_openai_is_bound_to_the_schema(configure: Configure, openai: FakeOpenAI) -> None:
    """The strict schema goes along; the answer comes back as the struct, with its provenance."""
    configure()
    openai.plan(answers('{"action": "keep", ', '"reason": "new", "links": [{"to": "a"}]}'))
    found = run(system="You judge.")
    assert found.value == Verdict("keep", "new", [Link("a")])
    assert (found.provider, found.model, found.tokens_in, found.tokens_out, found.repaired) == (
        "openai",
        "gpt-4o-mini",
        5,
        2,
        False,
    )
    assert found.cost_usd is not None
    form = openai.requests[0].body["response_format"]["json_schema"]
    assert form["strict"] is True
    assert form["schema"]["type"] == "object"
    assert form["schema"]["required"] == ["action", "reason", "links"]
    assert form["schema"]["additionalProperties"] is False
    assert form["schema"]["$defs"]["Link"]["required"] == ["to"]
    assert '"maxLength"' not in msgspec.json.encode(form).decode()


def test_anthropic_is_bound_by_a_tool(configure: Configure, anthropic: FakeAnthropic) -> None:
    """The model has to call a tool whose input is the struct."""
    configure()
    anthropic.plan(answers('{"action":', '"drop"}', finish_reason="tool_use"))
    found = run()
    assert (found.value.action, found.provider) == ("drop", "anthropic")
    body = anthropic.requests[0].body
    assert body["tool_choice"] == {"type": "any"}
    assert [tool["name"] for tool in body["tools"]] == ["answer"]
    schema = body["tools"][0]["input_schema"]
    assert schema["properties"].keys() == schema_of(Verdict)["properties"].keys()
    assert schema["required"] == ["action"]


def test_a_program_is_asked_in_words(configure: Configure) -> None:
    """The schema goes into the prompt, and the JSON is found in what it says around it."""
    configure(
        "[ask.command]\nargv = ['sh', '-c', 'grep -q enum &&"
        ' echo "Well: {\\"action\\":\\"keep\\"}!"\']\n'
    )
    assert run().value.action == "keep"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("I would keep it.", "no JSON object"),
        ('{"action": "burn"}', r"\$.action"),
        ('{"action": "keep", "reason": "' + "x" * 30 + '"}', "length <= 20"),
        ('{"action": "keep", "path": "../../etc"}', "unknown field"),
        ("{oops}", "invalid JSON"),
    ],
)
def test_a_wrong_answer_is_repaired(
    configure: Configure, openai: FakeOpenAI, wrong: str, complaint: str
) -> None:
    """Its fault is sent back once; tokens and cost of both answers are added up."""
    configure()
    openai.plan(answers(wrong), answers('{"action": "drop"}'))
    found = run()
    assert (found.value.action, found.repaired, found.tokens_in, found.tokens_out) == ("drop", True, 10, 2)
    messages = openai.requests[1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == wrong
    openai.plan(answers(wrong), answers(wrong))
    with pytest.raises(InvalidAnswer, match=complaint):
        run()


def test_the_repair_asks_the_same_one(
    configure: Configure, openai: FakeOpenAI, anthropic: FakeAnthropic
) -> None:
    """After a fallback, the one that answered is the one that is corrected."""
    configure()
    openai.plan(refuses(503), answers('{"action": "keep"}'))
    anthropic.plan(answers("{}"), answers('{"action": "drop"}'))
    found = run()
    assert (found.value.action, found.provider, len(openai.requests)) == ("drop", "anthropic", 1)
    assert [item.provider for item in found.fallbacks] == ["openai"]


def test_no_model_no_decision(configure: Configure) -> None:
    """The offline model does not decide unless it is listed."""
    configure()
    with pytest.raises(NoProvider) as caught:
        run()
    assert isinstance(caught.value, JobRefused)


def test_schema_of_a_struct_that_holds_itself() -> None:
    """Its definition stays where the reference finds it."""
    schema = schema_of(Tree)
    assert schema["type"] == "object"
    assert schema["properties"]["below"]["items"] == {"$ref": "#/$defs/Tree"}
    assert "Tree" in schema["$defs"]


class Tree(Struct):
    """A struct that holds itself."""

    below: list[Tree] = []
