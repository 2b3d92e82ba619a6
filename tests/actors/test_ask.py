"""``ask``: providers, their order, the fallback, and what an answer leaves behind."""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from middleware.interrupts import JobCancelled, TimeLimitExceeded
from ops.errors import JobFailed, JobRefused
from ops.local_model.client import INSTALL
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI, Reply, answers, drops, hangs, refuses
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("no_provider")

KEY = "sk-test-0123456789"
COMMAND = "[ask.command]\nargv = ['sh', '-c', 'printf \"local: \"; cat']\n"


def ask(prompt: str = "What is up?", **payload: object) -> JobRun:
    """Make a question."""
    return JobRun("ask", {"prompt": prompt, **payload})


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port without a listener, reserved by the test."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def test_answer_streams_and_is_the_result(configure: Configure, openai: FakeOpenAI) -> None:
    """Each piece goes to the output as it comes; the result has text, model and tokens."""
    configure()
    openai.plan(answers("Hel", "lo", " wörld"))
    run = ask(system="Be brief.", model="tiny", max_tokens=9)
    result = run.run()
    assert run.reporter.pieces == [("out", "Hel"), ("out", "lo"), ("out", " wörld")]
    assert msgspec.to_builtins(result) == {
        "text": "Hello wörld",
        "provider": "openai",
        "model": "tiny",
        "tokens_in": 5,
        "tokens_out": 3,
        "finish_reason": "stop",
    }
    received = openai.requests[0]
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is up?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
    }


def test_pieces_are_passed_on_before_the_answer_ends(configure: Configure, openai: FakeOpenAI) -> None:
    """The first word is seen while the server still thinks about the second; cancel ends it at once."""
    configure()
    openai.plan(hangs("Well"))
    run = ask().start()
    eventually(lambda: run.reporter.text("out") == "Well")
    begun = time.monotonic()
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert time.monotonic() - begun < 5
    assert openai.hung_up.wait(5)


def test_cancel_while_the_server_says_nothing(configure: Configure, openai: FakeOpenAI) -> None:
    """A wait for the status is aborted too, and no other provider is tried for a cancelled job."""
    configure(COMMAND)
    openai.plan(hangs())
    run = ask().start()
    assert openai.hanging.wait(5)
    run.interrupt(TimeLimitExceeded)
    with pytest.raises(TimeLimitExceeded):
        run.finish(2)
    assert run.reporter.pieces == []


def test_cancel_while_connecting(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not accepted is aborted at once."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        configure()
        run = ask().start()
        eventually(lambda: run.context._listeners)
        begun = time.monotonic()
        run.interrupt(JobCancelled)
        with pytest.raises(JobCancelled):
            run.finish(10)
        assert time.monotonic() - begun < 5
        for filler in fillers:
            filler.close()


def test_a_whole_document_is_an_answer_too(configure: Configure, openai: FakeOpenAI) -> None:
    """A server that ignores ``stream`` is understood."""
    configure()
    openai.plan(dataclasses.replace(answers("all at once"), whole=True))
    result = ask().run()
    assert (result.text, result.tokens_in, result.tokens_out) == ("all at once", 5, 1)


def test_an_answer_without_usage_has_no_tokens(configure: Configure, openai: FakeOpenAI) -> None:
    """What the server does not say is None, not 0; why the answer ended is passed on."""
    configure()
    openai.plan(answers("cut", usage=False, finish_reason="length"))
    result = ask().run()
    assert (result.tokens_in, result.tokens_out, result.finish_reason) == (None, None, "length")


def test_a_server_without_a_key_gets_none(
    configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base URL alone is enough for a local server, and settings may give it."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    configure(f"[ask.openai]\nbase_url = '{openai.base_url}/'\nmodel = 'mine'\n")
    assert ask("one two").run().text == "one two"
    assert "authorization" not in openai.requests[0].headers
    assert openai.requests[0].body["model"] == "mine"
    assert openai.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses(429, "slow down", retry_after_s=7), "slow down. It asks to retry in 7 s."),
        (refuses(500, "oops"), "500: oops."),
        (refuses(503, "busy"), "503"),
        (refuses(408, "late"), "408"),
        (drops(), "lost the connection"),
        (hangs(), "timed out"),
        (Reply(raw=b"data: {oops\n\ndata: {}\n\n"), "an event that is not JSON"),
        (Reply(raw=b"data: {oops\n\n"), "ended its answer in the middle"),
        (Reply(raw=b"data: x" + b"x" * 2_000_000), "more than"),
        (Reply(then="error", message="overloaded"), "overloaded"),
    ],
)
def test_fallback_when_the_provider_is_at_fault(
    configure: Configure, openai: FakeOpenAI, reply: Reply, reason: str
) -> None:
    """The next provider answers; result and output say who did not and why."""
    configure(f"[ask.openai]\ntimeout_s = 0.5\n{COMMAND}")
    openai.plan(reply)
    run = ask("hi")
    result = run.run()
    assert (result.text, result.provider) == ("local: hi", "command")
    assert [item.provider for item in result.fallbacks] == ["openai"]
    assert reason in result.fallbacks[0].reason
    assert result.fallbacks[0].reason in run.reporter.text("err")
    assert run.reporter.text("out") == "local: hi"


def test_fallback_on_a_refused_connection(
    configure: Configure, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port without a listener is a reason to try the next provider."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed_port}/v1")
    configure(COMMAND)
    result = ask("hi").run()
    assert result.provider == "command"
    assert "refused the connection" in result.fallbacks[0].reason


@pytest.mark.parametrize(
    ("status", "remedy"), [(400, "Correct"), (401, "key"), (403, "key"), (404, "--model"), (307, "base URL")]
)
def test_no_fallback_when_the_question_is_at_fault(
    configure: Configure, openai: FakeOpenAI, status: int, remedy: str
) -> None:
    """A refused question is refused for good, with the server's words and a remedy."""
    configure(COMMAND)
    openai.plan(refuses(status, "that is wrong"))
    with pytest.raises(JobRefused, match=f"{status}: that is wrong") as caught:
        ask().run()
    assert remedy in caught.value.remedy


def test_no_provider_answers(configure: Configure, openai: FakeOpenAI) -> None:
    """The failure can be retried, and names every provider with its reason."""
    configure("[ask.command]\nargv = ['sleep', '300']\ntimeout_s = 0.3\n")
    openai.plan(refuses(503, "busy"))
    run = ask()
    with pytest.raises(JobFailed, match=r"openai: .*busy.*command: sleep ran for more than 0\.3 s") as caught:
        run.run()
    assert not isinstance(caught.value, JobRefused)
    assert run.processes() == []


def test_an_answer_never_continues_with_another_provider(configure: Configure, openai: FakeOpenAI) -> None:
    """A provider that stops in the middle fails the attempt; two halves make no answer."""
    configure(COMMAND)
    openai.plan(drops("half"))
    run = ask()
    with pytest.raises(JobFailed, match="stopped in the middle") as caught:
        run.run()
    assert not isinstance(caught.value, JobRefused)
    assert run.reporter.text("out") == "half\n"
    assert "the answer above is incomplete" in run.reporter.text("err")


@pytest.mark.parametrize("key", [KEY, "hush.0123456789"])
def test_the_key_is_never_told(
    configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A server that sends the key back in its complaint, whole or masked, does not get it into our errors."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    configure()
    openai.plan(refuses(401, f"bad key {key}, or {KEY[:8]}*****6789"), refuses(500, f"{key}!"))
    with pytest.raises(JobRefused) as refused:
        ask().run()
    run = ask()
    with pytest.raises(JobFailed) as failed:
        run.run()
    for text in (str(refused.value), str(failed.value), run.reporter.text("err")):
        assert key not in text
        assert "sk-test" not in text
        assert "***" in text


def test_a_key_that_is_no_header_is_refused_untold(
    configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line break pasted into the key is reported without quoting the key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    configure()
    with pytest.raises(JobRefused, match="characters") as caught:
        ask().run()
    assert "sk-" not in str(caught.value)
    assert openai.requests == []


def test_an_answer_is_bounded(configure: Configure, openai: FakeOpenAI) -> None:
    """An answer that would not fit into a result is refused."""
    configure(result_max_bytes=10)
    openai.plan(answers("12345", "67890", "!"))
    with pytest.raises(JobRefused, match="longer than 10 bytes"):
        ask().run()


def test_order_of_providers_is_a_setting(configure: Configure, openai: FakeOpenAI) -> None:
    """``[ask] providers`` sets the order; ``--provider`` tries that provider only."""
    configure(f"[ask]\nproviders = ['command', 'openai']\n{COMMAND}")
    assert ask("hi").run().provider == "command"
    assert ask("hi", provider="openai").run().provider == "openai"
    openai.plan(refuses(503, "busy"))
    with pytest.raises(JobFailed, match="No provider answers: openai"):
        ask("hi", provider="openai").run()


def test_nothing_configured(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without even the offline model, the refusal says how to configure any of them."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    configure()
    with pytest.raises(JobRefused, match="No LLM provider") as caught:
        ask().run()
    assert "OPENAI_API_KEY" in caught.value.remedy
    assert "[ask.command]" in caught.value.remedy
    assert "pip install 'cmd-bridge[local]'" in caught.value.remedy
    with pytest.raises(JobRefused, match="'local' is not configured") as caught:
        ask(provider="local").run()
    assert caught.value.remedy == f"Install the offline model: {INSTALL}."


def test_unknown_and_missing_providers(configure: Configure) -> None:
    """A misspelt provider names the nearest; one that is not configured says how to do it."""
    configure(COMMAND)
    with pytest.raises(JobRefused, match="'opena'") as caught:
        ask(provider="opena").run()
    assert "'openai'" in caught.value.remedy
    with pytest.raises(JobRefused, match="not configured") as caught:
        ask(provider="openai").run()
    assert "OPENAI_API_KEY" in caught.value.remedy


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:80", "http://", "http://h:99999/v1"])
def test_a_base_url_that_is_none(configure: Configure, url: str) -> None:
    """The refusal shows how to write one."""
    configure(f"[ask.openai]\nbase_url = '{url}'\n")
    with pytest.raises(JobRefused, match="is not valid") as caught:
        ask().run()
    assert "https://" in caught.value.remedy


def test_a_host_that_does_not_exist(configure: Configure) -> None:
    """A name that cannot be resolved counts as unreachable."""
    configure("[ask.openai]\nbase_url = 'http://nowhere.invalid/v1'\n")
    with pytest.raises(JobFailed, match=r"nowhere\.invalid:80 cannot be resolved"):
        ask().run()


def test_command_gets_system_prompt_and_model(configure: Configure) -> None:
    """The program reads the system text and the prompt, and finds the model in its arguments."""
    configure(
        "[ask.command]\nargv = ['sh', '-c', 'echo \"$1\"; cat; echo thinking >&2', 'sh', '-m{model}']\n"
    )
    run = ask("hi", system="Be brief.", model="tiny")
    result = run.run()
    assert result.text == "-mtiny\nBe brief.\n\nhi"
    assert (result.provider, result.model, result.tokens_in) == ("command", "tiny", None)
    assert run.reporter.text("err") == "thinking\n"
    assert ask("hi").run().model == "sh"


def test_command_that_fails(configure: Configure, openai: FakeOpenAI) -> None:
    """Its status and error output are the error, and no other provider is tried."""
    configure(
        "[ask]\nproviders = ['command', 'openai']\n"
        "[ask.command]\nargv = ['sh', '-c', 'echo no >&2; exit 2']\n"
    )
    with pytest.raises(JobFailed, match="sh ended with status 2: no"):
        ask().run()
    assert openai.requests == []


def test_command_that_is_cancelled(configure: Configure, tmp_path: Path) -> None:
    """Cancel stops the local program and what it started."""
    configure(f"[ask.command]\nargv = ['sh', '-c', 'sleep 300 & touch {tmp_path}/on; sleep 300']\n")
    run = ask().start()
    eventually((tmp_path / "on").exists)
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert run.processes() == []
