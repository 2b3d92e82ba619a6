"""What servers do against their protocol: the right result for each, paid once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.errors import JobFailed, JobRefused
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.odd_models import COMPLETED, FAILED, MODELS, REFUSED, REQUESTS, OddModels

pytestmark = pytest.mark.usefixtures("no_provider")

COMMAND = "[ask.command]\nargv = ['sh', '-c', 'printf \"next: \"; cat']\n"


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddModels]:
    """The server, and the environment that points at it."""
    with OddModels() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


def ask(model: str) -> JobRun:
    """Make a question to a model."""
    return JobRun("ask", {"prompt": "hi", "model": model, "max_tokens": 9})


def test_every_model_has_a_right_result() -> None:
    """The table is complete, and no model is in it twice."""
    names = [*COMPLETED, *FAILED, *REFUSED]
    assert len(names) == len(set(names))
    assert set(MODELS) <= set(names)


@pytest.mark.parametrize("model", COMPLETED)
def test_an_odd_answer_is_an_answer(configure: Configure, odd: OddModels, model: str) -> None:
    """The text is the answer, what cannot be read of its usage is left out, and it was asked for once."""
    configure()
    run = ask(model)
    result = run.run()
    text, tokens_in = COMPLETED[model]
    assert (result.text, result.tokens_in) == (text, tokens_in)
    assert run.reporter.text("out") == text
    assert len(odd.requests) == REQUESTS.get(model, 1)


@pytest.mark.parametrize("model", FAILED)
def test_what_is_no_answer_fails(configure: Configure, odd: OddModels, model: str) -> None:
    """The failure says what happened, can be retried, and the server was asked once."""
    configure()
    with pytest.raises(JobFailed) as caught:
        ask(model).run()
    assert not isinstance(caught.value, JobRefused)
    assert FAILED[model] in caught.value.message
    assert len(odd.requests) == 1


@pytest.mark.parametrize("model", ["empty", "filter", "refusal", "reason_only", "blank", "cut_empty"])
def test_the_next_provider_answers_instead(configure: Configure, odd: OddModels, model: str) -> None:
    """Without a text of the first provider, the next one answers."""
    configure(COMMAND)
    result = ask(model).run()
    assert (result.text, result.provider) == ("next: hi", "command")
    assert FAILED[model] in result.fallbacks[0].reason
    assert len(odd.requests) == 1


@pytest.mark.parametrize("model", REFUSED)
def test_a_wrong_address_is_one_error(configure: Configure, odd: OddModels, model: str) -> None:
    """It is final, shows the address, and says what to correct."""
    configure(COMMAND)
    with pytest.raises(JobRefused) as caught:
        ask(model).run()
    assert REFUSED[model] in caught.value.message
    assert odd.base_url.removeprefix("http://").partition("/")[0] in caught.value.message
    assert "base URL" in caught.value.remedy
    assert len(odd.requests) == 1
