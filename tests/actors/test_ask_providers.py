"""``ask`` across protocols: Anthropic's, Ollama's, the order of all, prices."""

from __future__ import annotations

import dataclasses
import sys

import msgspec
import pytest

from actors.llm.model_provider import ModelProvider
from actors.llm.ollama_host import ollama_url
from actors.llm.provider import AskRequest, Message
from actors.llm.provider_selection import choose
from middleware.context import set_current_job
from middleware.interrupts import JobCancelled
from ops.errors import JobFailed, JobParked, JobRefused
from ops.settings.model_services import SERVICES
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, Reply, answers, drops, hangs, refuses

pytestmark = pytest.mark.usefixtures("no_provider")


def ask(prompt: str = "What is up?", **payload: object) -> JobRun:
    """Make a question."""
    return JobRun("ask", {"prompt": prompt, **payload})


def test_anthropic_streams_and_is_the_result(configure: Configure, anthropic: FakeAnthropic) -> None:
    """The pieces are streamed; text, model, tokens, cost and end are those that the server tells."""
    configure()
    anthropic.plan(answers("Hel", "lo", finish_reason="end_turn"))
    run = ask(system="Be brief.", max_tokens=9)
    result = run.run()
    assert run.reporter.pieces == [("out", "Hel"), ("out", "lo")]
    assert msgspec.to_builtins(result) == {
        "text": "Hello",
        "provider": "anthropic",
        "model": "claude-haiku-4-5",
        "tokens_in": 5,
        "tokens_out": 2,
        "cost_usd": pytest.approx(5 * 1e-6 + 2 * 5e-6),
        "finish_reason": "stop",
    }
    received = anthropic.requests[0]
    assert received.path == "/v1/messages"
    assert received.headers["x-api-key"] == "sk-ant-0123456789"
    assert received.headers["anthropic-version"]
    assert received.body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is up?"}]}],
        "stream": True,
    }


def test_anthropic_demands_a_bound(configure: Configure, anthropic: FakeAnthropic) -> None:
    """A request that names none is sent with the one of the settings; so is a base URL with /v1."""
    configure(f"[ask]\nanswer_max_tokens = 77\n[ask.anthropic]\nbase_url = '{anthropic.origin}/v1/'\n")
    anthropic.plan(answers("cut", finish_reason="max_tokens"))
    assert ask().run().finish_reason == "length"
    assert anthropic.requests[0].body["max_tokens"] == 77
    assert anthropic.requests[0].path == "/v1/messages"


def test_anthropic_as_one_document(configure: Configure, anthropic: FakeAnthropic) -> None:
    """A server that does not stream is understood; what came from its cache counts as read."""
    configure()
    anthropic.plan(dataclasses.replace(answers("all", finish_reason="end_turn"), whole=True))
    result = ask().run()
    assert (result.text, result.tokens_in, result.tokens_out, result.finish_reason) == ("all", 5, 1, "stop")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses(429, "slow down", retry_after_s=7), "slow down. It asks to retry in 7 s."),
        (refuses(500, "oops"), "500: oops."),
        (refuses(529, "overloaded"), "529: overloaded."),
        (drops(), "lost the connection"),
        (hangs(), "timed out"),
        (Reply(raw=b"data: {oops\n\ndata: {}\n\n"), "an event that is not JSON"),
        (Reply(raw=b"data: {oops\n\n"), "ended its answer in the middle"),
        (Reply(then="error", message="overloaded"), "overloaded"),
    ],
)
def test_from_anthropic_to_openai(
    configure: Configure, anthropic: FakeAnthropic, openai: FakeOpenAI, reply: Reply, reason: str
) -> None:
    """Whatever the first one does, the second one answers."""
    configure("[ask]\nproviders = ['anthropic', 'openai']\n[ask.anthropic]\ntimeout_s = 1.5\n")
    anthropic.plan(reply)
    openai.plan(answers("here"))
    result = ask().run()
    assert (result.text, result.provider) == ("here", "openai")
    assert [item.provider for item in result.fallbacks] == ["anthropic"]
    assert reason in result.fallbacks[0].reason


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_bad_request_is_nobody_elses(
    configure: Configure, anthropic: FakeAnthropic, openai: FakeOpenAI, status: int
) -> None:
    """A refusal is final: no other provider is tried, and none twice."""
    configure("[ask]\nproviders = ['anthropic', 'openai']\n")
    anthropic.plan(refuses(status, "that is wrong"))
    with pytest.raises(JobRefused, match=f"{status}: that is wrong"):
        ask().run()
    assert (len(anthropic.requests), openai.requests) == (1, [])


def test_anthropic_is_cancelled(configure: Configure, anthropic: FakeAnthropic) -> None:
    """Cancel breaks the stream off."""
    configure()
    anthropic.plan(hangs("Well"))
    run = ask().start()
    assert anthropic.hanging.wait(5)
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert anthropic.hung_up.wait(5)


def test_ollama(configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST is enough; its answers are free, and no key is sent."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("OLLAMA_HOST", openai.origin.removeprefix("http://"))
    configure("[ask.ollama]\nmodel = 'mini'\n")
    result = ask("one two").run()
    assert (result.text, result.provider, result.model, result.cost_usd) == ("one two", "ollama", "mini", 0.0)
    assert "authorization" not in openai.requests[0].headers


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 (as users have it)
        (":8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("box:81", "http://box:81"),
        ("https://box/", "https://box:443"),
        ("http://box:82/v1", "http://box:82/v1"),
        ("[::1]:83", "http://[::1]:83"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("::", "http://127.0.0.1:11434"),
        ("'127.0.0.1'", "http://127.0.0.1:11434"),
        (' "box:81" ', "http://box:81"),
        ("box/path", "http://box:11434/path"),
        ("http://box", "http://box:80"),
        ("http://me:secret@box:82/path/", "http://me:secret@box:82/path"),
        ("box:port", "http://box:11434"),
        ("ollama.com", "https://ollama.com:443"),
    ],
)
def test_ollama_host(host: str, url: str) -> None:
    """Every form that Ollama itself takes is understood."""
    assert ollama_url(host) == url


def test_default_order(
    configure: Configure,
    openai: FakeOpenAI,
    anthropic: FakeAnthropic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that are configured are asked, and the offline model is not among them."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    loaded = configure("[ask.command]\nargv = ['cat']\n")
    assert [item.name for item in choose(loaded, None)] == ["openai", "anthropic", "ollama", "command"]
    openai.plan(refuses(503))
    anthropic.plan(refuses(503))
    result = ask("hi").run()
    assert (result.provider, [item.provider for item in result.fallbacks]) == (
        "command",
        ["openai", "anthropic", "ollama"],
    )


def test_a_named_model_is_the_first_ones(
    configure: Configure, openai: FakeOpenAI, anthropic: FakeAnthropic
) -> None:
    """Who answers in its place uses a model of its own."""
    configure()
    openai.plan(refuses(503))
    assert ask(model="gpt-5").run().model == "claude-haiku-4-5"
    assert anthropic.requests[0].body["model"] == "claude-haiku-4-5"
    assert openai.requests[0].body["model"] == "gpt-5"


def test_cost(configure: Configure, openai: FakeOpenAI) -> None:
    """A known model has a price; one of 3ox.toml goes before it; an unknown one has none, not 0."""
    configure()
    known = ask(model="gpt-4o-mini-2024-07-18")
    openai.plan(answers("a", "b"))
    assert known.run().cost_usd == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    assert ask(model="mine").run().cost_usd is None
    configure("[ask.prices.'gpt-4o-mini']\ninput_usd = 1\noutput_usd = 10\n")
    openai.plan(answers("a", "b"))
    assert ask().run().cost_usd == pytest.approx(25e-6)


def test_all_are_limited(configure: Configure, openai: FakeOpenAI, anthropic: FakeAnthropic) -> None:
    """The earliest of the times that they name is when the job goes on."""
    configure("[ask]\npark_max_s = 99\n")
    openai.plan(refuses(429, "slow", headers={"x-ratelimit-reset-tokens": "1m1s"}))
    anthropic.plan(refuses(429, "slow", retry_after_s=5))
    with pytest.raises(JobParked, match=r"No provider answers: openai: .*anthropic: ") as caught:
        ask().run()
    assert (caught.value.after_s, caught.value.limit_s) == (5.0, 99.0)


def test_limited_without_a_time(configure: Configure, openai: FakeOpenAI) -> None:
    """A 429 that names no time is a failure like any other: counted, retried with backoff."""
    configure()
    openai.plan(refuses(429, "quota"))
    with pytest.raises(JobFailed, match="quota") as caught:
        ask().run()
    assert not isinstance(caught.value, JobParked)


@pytest.mark.parametrize(
    ("provider", "table", "extra"),
    [
        ("google", "[ask.google]\nbase_url = 'http://127.0.0.1:1'\n", "google"),
        ("bedrock", "[ask.bedrock]\nregion = 'eu-central-1'\n", "bedrock"),
        ("openai", "[ask.openai]\nbase_url = 'http://127.0.0.1:1'\n", "llm"),
    ],
)
def test_a_missing_package_names_its_extra(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, provider: str, table: str, extra: str
) -> None:
    """A provider whose packages are not installed says how to install them."""
    for name in ("google.genai", "boto3", "openai"):
        monkeypatch.setitem(sys.modules, name, None)
    configure(table)
    with pytest.raises(JobRefused, match=f"The provider '{provider}' needs packages") as caught:
        ask(provider=provider).run()
    assert f"cmd-bridge[{extra}]" in caught.value.remedy


@pytest.mark.parametrize("provider", ["mistral", "groq", "openrouter"])
def test_services_with_openais_protocol(
    configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """Their key is enough to configure them; the address is that of the service unless another is set."""
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "key-0123456789")
    loaded = configure()
    chosen = choose(loaded, provider)[0]
    assert isinstance(chosen, ModelProvider)
    assert chosen.server.base_url == SERVICES[provider].url
    configure(f"[ask.{provider}]\nbase_url = '{openai.base_url}'\nmodel = 'vendor/mini'\n")
    openai.plan(answers("Hel", "lo"))
    result = ask(provider=provider, system="Be brief.").run()
    assert (result.text, result.provider, result.tokens_out) == ("Hello", provider, 2)
    assert openai.requests[0].headers["authorization"] == "Bearer key-0123456789"
    assert openai.requests[0].body["model"] == "vendor/mini"


def test_a_conversation_that_begins_with_an_answer(configure: Configure, openai: FakeOpenAI) -> None:
    """The system prompt comes first, whichever side wrote the first remembered message."""
    configure()
    provider = choose(configure(), "openai")[0]
    request = AskRequest(
        messages=[Message("assistant", "a"), Message("user", "b")], system="Be brief.", max_tokens=5
    )
    run = ask()
    set_current_job(run.context)
    try:
        list(provider.stream(request))
    finally:
        set_current_job(None)
    sent = [(message["role"], message["content"]) for message in openai.requests[0].body["messages"]]
    assert sent == [("system", "Be brief."), ("assistant", "a"), ("user", "b")]
