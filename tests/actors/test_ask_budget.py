"""Budgets: counted in a real store, kept under concurrency and across the death of a worker."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest

from actors.context import bridge_scripts
from actors.llm.budget import BudgetSpent
from middleware.broker.spending import Limits, Spender, claim, day_use_command, read_day_use, settle
from middleware.job.records import utc_now
from ops.errors import JobFailed, JobParked, JobRefused
from ops.settings.load import LoadedSettings
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI, answers, drops, refuses
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("no_provider")

Counting = Callable[[str], LoadedSettings]


@pytest.fixture
def counting(configure: Configure, valkey: str, prefix: str) -> Counting:
    """Set the settings of a process that has a store."""
    return lambda toml: configure(toml, redis_url=valkey, key_prefix=prefix)


def ask(prompt: str = "What is up?", **payload: object) -> JobRun:
    """Make a question."""
    return JobRun("ask", {"prompt": prompt, **payload})


def used(loaded: LoadedSettings) -> tuple[int, int, int]:
    """Return today's answers, tokens and billionths of a dollar."""
    scripts = bridge_scripts(loaded)
    use = read_day_use(scripts.store.call(*day_use_command(scripts.prefix, utc_now()[:10])))
    return use.answers, use.tokens, use.nano_usd


def test_the_day_is_counted_without_a_budget(counting: Counting, openai: FakeOpenAI) -> None:
    """Tokens and money of each answer are added up; who did not answer costs nothing."""
    loaded = counting("[ask.command]\nargv = ['true']\n")
    openai.plan(answers("a", "b"), answers("c"), refuses(500))
    ask(provider="openai").run()
    ask(provider="openai").run()
    with pytest.raises(JobFailed):
        ask(provider="openai").run()
    assert used(loaded) == (2, 13, 13 * 150 + 3 * 450)
    scripts = bridge_scripts(loaded)
    day = utc_now()[:10]
    assert 0 < scripts.store.call("TTL", f"{scripts.prefix}ask:use:{day}") <= 172_800
    assert scripts.store.call("HLEN", f"{scripts.prefix}ask:held:{day}") == 0


def test_a_program_of_this_machine_is_counted_only_with_a_price(counting: Counting) -> None:
    """Without one it costs nothing, and no budget keeps it from its answer; with one it is as any other."""
    command = "[ask.command]\nargv = ['cat']\n"
    loaded = counting(f"{command}[ask.budget]\nday_tokens = 1\nday_usd = 0.000001\n")
    result = ask().run()
    assert (result.text, result.provider, result.cost_usd) == ("What is up?", "command", 0.0)
    assert used(loaded) == (0, 0, 0)
    priced = '[ask.prices."cat"]\ninput_usd = 1.0\noutput_usd = 2.0\n'
    loaded = counting(f"{command}{priced}")
    assert ask().run().text == "What is up?"
    answered, tokens, nano_usd = used(loaded)
    assert (answered, nano_usd > 0, tokens > 0) == (1, True, True)
    counting(f"{command}{priced}[ask.budget]\nday_usd = 0.000001\n")
    with pytest.raises(BudgetSpent):
        ask().run()


def test_a_broken_answer_is_counted_by_its_length(counting: Counting, openai: FakeOpenAI) -> None:
    """Text received before the connection broke is charged."""
    loaded = counting("")
    openai.plan(drops("half an answer"))
    with pytest.raises(JobFailed, match="stopped in the middle"):
        ask().run()
    answered, tokens, _ = used(loaded)
    assert answered == 1
    assert tokens >= 8


def test_budget_of_the_day_in_tokens(counting: Counting, openai: FakeOpenAI) -> None:
    """When it is spent, no provider is asked, and the error says so."""
    loaded = counting("[ask.budget]\nday_tokens = 100\n")
    openai.plan(answers(*"x" * 90))
    ask().run()
    assert used(loaded)[1] == 95
    with pytest.raises(
        BudgetSpent, match=r"of the day does not cover .*: 95 of 100 tokens are spent"
    ) as caught:
        ask().run()
    assert "day_tokens in [ask.budget]" in caught.value.remedy
    assert len(openai.requests) == 1


def test_the_rest_of_the_budget_bounds_the_answer(counting: Counting, openai: FakeOpenAI) -> None:
    """The request limits the length of the answer; an answer cut off by it fails with that reason."""
    counting("[ask.budget]\nday_tokens = 60\n")
    openai.plan(answers("a", "b", finish_reason="length"))
    with pytest.raises(BudgetSpent, match=r"cut off: the budget allows 51 tokens") as caught:
        ask("hi", max_tokens=1000).run()
    assert openai.requests[0].body["max_tokens"] == 51  # 60 less the 9 that "hi" is taken for
    assert caught.value.result.text == "ab"


def test_an_answer_within_the_budget_is_whole(counting: Counting, openai: FakeOpenAI) -> None:
    """An answer that ended because of its own max_tokens is an answer."""
    counting("[ask.budget]\nday_tokens = 60\n")
    openai.plan(answers("a", finish_reason="length"))
    assert ask("hi", max_tokens=1).run().finish_reason == "length"


def test_budget_in_money(counting: Counting, openai: FakeOpenAI) -> None:
    """Prices of 3ox.toml are exact to a billionth; without a price the request is refused."""
    prices = "[ask.prices.mine]\ninput_usd = 1\noutput_usd = 2\n"
    loaded = counting(f"[ask.budget]\nday_usd = 0.0001\n{prices}")
    openai.plan(answers(*"x" * 40, finish_reason="length"))
    with pytest.raises(BudgetSpent, match="allows 45 tokens"):
        ask("hi", model="mine").run()
    assert used(loaded) == (1, 45, 5 * 1000 + 40 * 2000)
    with pytest.raises(BudgetSpent, match=r"\$0\.000085 of \$0\.0001 are spent"):
        ask("hi", model="mine").run()
    with pytest.raises(JobRefused, match="the price of the model 'odd' is unknown") as caught:
        ask("hi", model="odd").run()
    assert '[ask.prices."odd"]' in caught.value.remedy


def test_budget_of_a_job(counting: Counting, openai: FakeOpenAI) -> None:
    """All attempts of a job count together; another job has its own."""
    counting("[ask.budget]\njob_tokens = 100\n")
    openai.plan(answers(*"x" * 80), answers("y"))
    run = ask()
    run.run()
    with pytest.raises(BudgetSpent, match=r"The budget of the job does not cover .*: 85 of 100"):
        run.run()
    assert ask().run().text == "y"


def test_free_answers_need_no_budget(
    counting: Counting, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget of nothing leaves Ollama and the offline model."""
    monkeypatch.setenv("OLLAMA_HOST", openai.origin)
    loaded = counting("[ask.budget]\nday_usd = 0\nday_tokens = 0\n")
    assert ask("hi", provider="ollama").run().text == "hi"
    assert used(loaded) == (0, 0, 0)
    with pytest.raises(BudgetSpent):
        ask("hi", provider="openai").run()


def test_many_at_once_stay_within(counting: Counting, openai: FakeOpenAI) -> None:
    """Twenty questions at the same moment: those are asked whose answers all fit, the rest wait or stop."""
    loaded = counting("[ask.budget]\nday_tokens = 400\n")
    openai.plan(*[dataclasses.replace(answers(*"x" * 50), delay_s=0.2) for _ in range(20)])
    barrier = threading.Barrier(20)
    outcomes: list[str] = []

    def one() -> None:
        barrier.wait(10)
        try:
            ask("hi", max_tokens=50).run()
            outcomes.append("answered")
        except (JobParked, BudgetSpent) as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(outcomes) == 20
    assert outcomes.count("answered") == len(openai.requests) == 400 // 62
    assert outcomes.count("JobParked") >= 1
    assert used(loaded)[1] == 55 * outcomes.count("answered") <= 400


def test_who_waits_for_others_says_so(counting: Counting, openai: FakeOpenAI) -> None:
    """While another job's answer holds the rest, the job is parked for a moment, not refused."""
    counting("[ask.budget]\nday_tokens = 100\n")
    openai.plan(dataclasses.replace(answers("x"), delay_s=0.5), answers("y"))
    first = ask("hi", max_tokens=80).start()
    eventually(lambda: openai.requests)
    with pytest.raises(
        JobParked, match="Other jobs have reserved the rest of the budget day_tokens"
    ) as caught:
        ask("hi", max_tokens=80).run()
    assert caught.value.after_s == 2.0
    first.finish()
    assert ask("hi", max_tokens=80).run().text == "y"


def test_a_hold_without_an_end_is_spent(counting: Counting) -> None:
    """What a worker that died had held counts when its time is over, or when its attempt runs again."""
    loaded = counting("")
    scripts = bridge_scripts(loaded)

    def spender(job_id: str) -> Spender:
        return Spender(day=utc_now()[:10], job_id=job_id, attempt=1)

    def hold(job_id: str, hold_ms: int = 60_000) -> str:
        limits, prices = Limits(day_tokens=100), {"nano_in": 1, "nano_out": 2}
        return claim(
            scripts, spender(job_id), limits, question=10, answer=20, least=1, hold_ms=hold_ms, **prices
        ).outcome

    def give_back(job_id: str, tokens: int) -> bool:
        return settle(scripts, spender(job_id), tokens=tokens, nano_usd=0, count_job=False)

    assert hold("dead", 1) == "ok"
    assert eventually(lambda: hold("other") == "ok" and give_back("other", 0) and used(loaded)[1]) == 30
    assert hold("again") == hold("again") == "ok"
    assert used(loaded) == (0, 60, 100)
    assert hold("more") == "held"
    assert give_back("again", 15) is True
    assert give_back("again", 15) is False
    assert used(loaded)[1] == 75
    assert hold("more") == "ok"
    assert give_back("more", 20)
    assert hold("last") == "spent"


def test_a_budget_needs_the_store(configure: Configure, openai: FakeOpenAI) -> None:
    """Without the store a budget cannot be checked: no provider is asked."""
    configure("[ask.budget]\nday_tokens = 100\n")
    with pytest.raises(JobFailed, match=r"The budget of \[ask.budget\] cannot be checked: The store"):
        ask().run()
    assert openai.requests == []
