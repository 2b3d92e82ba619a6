"""Asks providers in order until one answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from actors.context import current_job, settings
from actors.llm.budget import JobBudget
from actors.llm.provider import AskRequest, Provider, ProviderUnavailable, Usage
from actors.llm.results import Fallback
from ops.errors import JobFailed, JobParked, JobRefused


class Answer(Struct, frozen=True, kw_only=True):
    """A complete answer.

    Attributes:
        text: Its text.
        provider: Name of the provider.
        usage: Its usage.
        cost_usd: Its cost in US dollars; None if the price is unknown.
        note: The provider's hint for readers.
        fallbacks: Providers that were tried before, in order.
    """

    text: str
    provider: str
    usage: Usage
    cost_usd: float | None
    note: str
    fallbacks: list[Fallback]


class AskOptions(Struct, frozen=True, kw_only=True):
    """Options of a request.

    Attributes:
        write: Called with each piece of the answer.
        note: Called with a line about each fallback.
        limit_bytes: Maximum size of the answer, in bytes of UTF-8.
        park_max_s: Limit of the waits for rate-limited providers, in seconds.
        budget: The budgets.
    """

    write: Callable[[str], None]
    note: Callable[[str], None]
    limit_bytes: int
    park_max_s: float
    budget: JobBudget


def job_ask_options(*, write: Callable[[str], None]) -> AskOptions:
    """Return the options for the current job: its limits and budgets, with fallbacks noted in its output.

    Args:
        write: Called with each piece of the answer.
    """
    loaded, context = settings(), current_job()
    return AskOptions(
        write=write,
        note=lambda line: context.log(line, stream="err"),
        limit_bytes=loaded.settings.result_max_bytes,
        park_max_s=loaded.settings.ask.park_max_s,
        budget=JobBudget(loaded),
    )


def ask_in_order(providers: Sequence[Provider], request: AskRequest, options: AskOptions) -> Answer:
    """Try the providers in order until one answers.

    The next one is tried only if the previous one was unavailable before it sent any text: an answer is never
    composed of the output of two providers.

    Args:
        providers: Providers in order.
        request: The request.
        options: Its options.

    Raises:
        JobParked: No provider answered, and at least one named the time to retry.
        JobFailed: No provider answered, or one stopped in the middle of its answer; worth a retry.
        JobRefused: The request or the settings are at fault, or the answer is too long.
        BudgetSpent: The budget does not cover the request, or not the whole answer.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    fallbacks: list[Fallback] = []
    waits_s: list[float] = []
    remedies: list[str] = []
    for number, provider in enumerate(providers):
        # A model named by the request belongs to the first provider; the others may not know it.
        own_request = request if number == 0 else msgspec.structs.replace(request, model=None)
        try:
            return _ask(provider, own_request, options, fallbacks)
        except ProviderUnavailable as error:
            fallbacks.append(Fallback(provider=provider.name, reason=error.message))
            remedies.append(error.remedy)
            if error.retry_after_s is not None:
                waits_s.append(error.retry_after_s)
            options.note(f"3ox: {provider.name} does not answer: {error.message}")
    message = f"No provider answers: {' '.join(f'{item.provider}: {item.reason}' for item in fallbacks)}"
    if waits_s:
        raise JobParked(
            message,
            after_s=min(waits_s),
            limit_s=options.park_max_s,
            remedy="Retry then, or configure another provider.",
        )
    # The remedy of one provider is of use only if it is the only one.
    own = remedies[0] if len(remedies) == 1 else ""
    raise JobFailed(message, remedy="Retry later, or configure another provider." if own == "" else own)


def _ask(provider: Provider, request: AskRequest, options: AskOptions, fallbacks: list[Fallback]) -> Answer:
    """Ask one provider.

    Raises:
        ProviderUnavailable: It failed before it sent any text.
    """
    reservation = options.budget.reserve(provider, request)
    buffer = _AnswerBuffer(options.write, options.limit_bytes)
    settled, used = False, None
    try:
        # Closed here, so that an error on our side ends the exchange with the provider at once.
        stream = cast("Generator[str | Usage]", provider.stream(reservation.request))
        with contextlib.closing(stream):
            for item in stream:
                buffer.add(item)
        if buffer.usage is None:
            raise LookupError(f"the provider {provider.name} ended without its usage")
        buffer.require_text(provider.name)
        cost = options.budget.settle(reservation, buffer.usage, buffer.text)
        settled = True
    except ProviderUnavailable as error:
        used = error.usage
        if not buffer.is_blank:
            # The text is on the user's screen already; the next attempt must not look like its continuation.
            options.write("\n")
            options.note(f"3ox: {provider.name} stopped in the middle; the answer above is incomplete.")
            raise JobFailed(
                f"{provider.name} stopped in the middle of its answer: {error.message}"
            ) from error
        raise
    finally:
        if not settled:
            options.budget.settle(reservation, used, buffer.text)
    answer = Answer(
        text=buffer.text,
        provider=provider.name,
        usage=buffer.usage,
        cost_usd=0.0 if provider.free else cost,
        note=provider.note,
        fallbacks=fallbacks,
    )
    if reservation.cut and buffer.usage.finish_reason == "length":
        spent = options.budget.cut_off(reservation)
        spent.answer = answer
        raise spent
    return answer


class _AnswerBuffer:
    """The answer of one provider so far."""

    def __init__(self, write: Callable[[str], None], limit_bytes: int) -> None:
        self._write = write
        self._limit_bytes = limit_bytes
        self._parts: list[str] = []
        self._size_bytes = 0
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def is_blank(self) -> bool:
        return all(part.isspace() or part == "" for part in self._parts)

    def require_text(self, provider: str) -> None:
        """Check that the complete answer has a text.

        Raises:
            ProviderUnavailable: It is empty, or white space.
        """
        if self.is_blank:
            raise ProviderUnavailable(f"{provider} gave an empty answer.", usage=self.usage)

    def add(self, item: str | Usage) -> None:
        if isinstance(item, Usage):
            self.usage = item
            return
        self._parts.append(item)
        self._size_bytes += len(item.encode("utf-8", "replace"))
        if self._size_bytes > self._limit_bytes:
            raise JobRefused(
                f"The answer is longer than {self._limit_bytes} bytes.",
                remedy="Limit it with max_tokens, or raise result_max_bytes.",
            )
        self._write(item)
