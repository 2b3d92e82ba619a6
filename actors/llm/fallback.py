"""Ask providers in order until one answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from actors.context import current_job, settings
from actors.llm.budget import JobBudget
from actors.llm.provider import AskRequest, Provider, ProviderUnavailable, Usage
from ops.errors import JobFailed, JobParked, JobRefused


class Fallback(Struct, frozen=True, kw_only=True):
    """A provider that was asked and did not answer.

    Attributes:
        provider: Its name.
        reason: Why, one sentence.
    """

    provider: str
    reason: str


class Answer(Struct, frozen=True, kw_only=True):
    """The answer, and who gave it.

    Attributes:
        text: All of it.
        provider: Name of the provider.
        usage: What it took.
        cost_usd: What it cost, in dollars; None if the price is not known.
        note: What is to be known about the provider's answers.
        fallbacks: Who was asked before, in order.
    """

    text: str
    provider: str
    usage: Usage
    cost_usd: float | None
    note: str
    fallbacks: list[Fallback]


class AskOptions(Struct, frozen=True, kw_only=True):
    """How a question is asked.

    Attributes:
        write: Takes the text as it comes.
        note: Takes a line about each fallback.
        limit_bytes: Bound on the answer, in bytes of UTF-8.
        park_max_s: Bound on the wait for providers that say when to come back, in seconds.
        budget: The budgets.
    """

    write: Callable[[str], None]
    note: Callable[[str], None]
    limit_bytes: int
    park_max_s: float
    budget: JobBudget


def job_ask_options(*, write: Callable[[str], None]) -> AskOptions:
    """Say how the current job asks: within the limits and budgets, and its output tells of fallbacks.

    Args:
        write: Takes the text as it comes.
    """
    loaded, context = settings(), current_job()
    return AskOptions(
        write=write,
        note=lambda line: context.log(line, stream="err"),
        limit_bytes=loaded.settings.result_max_bytes,
        park_max_s=loaded.settings.ask.park_max_s,
        budget=JobBudget(loaded),
    )


def ask_in_order(providers: Sequence[Provider], request: AskRequest, asking: AskOptions) -> Answer:
    """Ask one provider after the other until one answers.

    The next one is asked only if the one before is unavailable and has said nothing yet: two halves of two
    answers are no answer.

    Args:
        providers: Whom to ask, in order.
        request: The question.
        asking: How.

    Raises:
        JobParked: None answered, and one at least has said when to come back.
        JobFailed: None answered, or one broke off in the middle; worth another attempt.
        JobRefused: The question or the configuration is at fault, or the answer is too long.
        BudgetSpent: The budget does not cover the question, or not the whole answer.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    fallbacks: list[Fallback] = []
    waits_s: list[float] = []
    remedies: list[str] = []
    for number, provider in enumerate(providers):
        # A model that the question names is one of the provider that comes first; nobody else may know it.
        fitting = request if number == 0 else msgspec.structs.replace(request, model=None)
        try:
            return _ask(provider, fitting, asking, fallbacks)
        except ProviderUnavailable as error:
            fallbacks.append(Fallback(provider=provider.name, reason=error.message))
            remedies.append(error.remedy)
            if error.retry_after_s is not None:
                waits_s.append(error.retry_after_s)
            asking.note(f"3ox: {provider.name} does not answer: {error.message}")
    said = f"no provider answers: {' '.join(f'{item.provider}: {item.reason}' for item in fallbacks)}"
    if waits_s:
        raise JobParked(
            said,
            after_s=min(waits_s),
            limit_s=asking.park_max_s,
            remedy="Ask again then, or configure another provider.",
        )
    # Of several, none is the one to follow.
    own = remedies[0] if len(remedies) == 1 else ""
    raise JobFailed(said, remedy="Try again later, or configure another provider." if own == "" else own)


def _ask(provider: Provider, request: AskRequest, asking: AskOptions, fallbacks: list[Fallback]) -> Answer:
    """Ask one provider.

    Raises:
        ProviderUnavailable: It has said nothing at all.
    """
    claim = asking.budget.claim(provider, request)
    collected = _AnswerBuffer(asking.write, asking.limit_bytes)
    settled = False
    try:
        # Closed here and now, so that an error on our side ends the exchange with the provider at once.
        stream = cast("Generator[str | Usage]", provider.stream(claim.request))
        with contextlib.closing(stream):
            for item in stream:
                collected.take(item)
        if collected.usage is None:
            raise LookupError(f"the provider {provider.name} ended without its usage")
        cost = asking.budget.settle(claim, collected.usage, collected.text)
        settled = True
    except ProviderUnavailable as error:
        if collected.text != "":
            # What has been shown stays on the screen; the next attempt must not seem its continuation.
            asking.write("\n")
            asking.note(f"3ox: {provider.name} broke off in the middle; this half is no answer.")
            raise JobFailed(f"{provider.name} broke off in the middle: {error.message}") from error
        raise
    finally:
        if not settled:
            asking.budget.settle(claim, None, collected.text)
    answer = Answer(
        text=collected.text,
        provider=provider.name,
        usage=collected.usage,
        cost_usd=0.0 if provider.free else cost,
        note=provider.note,
        fallbacks=fallbacks,
    )
    if claim.cut and collected.usage.finish_reason == "length":
        refusal = asking.budget.refusal(claim)
        refusal.answer = answer
        raise refusal
    return answer


class _AnswerBuffer:
    """What one provider has said so far."""

    def __init__(self, write: Callable[[str], None], limit_bytes: int) -> None:
        self._write = write
        self._limit_bytes = limit_bytes
        self._parts: list[str] = []
        self._size_bytes = 0
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def take(self, item: str | Usage) -> None:
        if isinstance(item, Usage):
            self.usage = item
            return
        self._parts.append(item)
        self._size_bytes += len(item.encode("utf-8", "replace"))
        if self._size_bytes > self._limit_bytes:
            raise JobRefused(
                f"the answer is longer than {self._limit_bytes} bytes.",
                remedy="Ask for a shorter one (max_tokens), or raise result_max_bytes.",
            )
        self._write(item)
