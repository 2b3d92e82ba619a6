"""Ask providers in order until one answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import cast

from msgspec import Struct

from actors.llm.provider import AskRequest, Provider, ProviderUnavailable, Usage
from ops.errors import JobFailed, JobRefused


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
        fallbacks: Who was asked before, in order.
    """

    text: str
    provider: str
    usage: Usage
    fallbacks: list[Fallback]


def ask_in_order(
    providers: Sequence[Provider],
    request: AskRequest,
    *,
    write: Callable[[str], None],
    note: Callable[[str], None],
    limit_bytes: int,
) -> Answer:
    """Ask one provider after the other until one answers.

    The next one is asked only if the one before is unavailable and has said nothing yet: two halves of two
    answers are no answer.

    Args:
        providers: Whom to ask, in order.
        request: The question.
        write: Takes the text as it comes.
        note: Takes a line about each fallback.
        limit_bytes: Bound on the answer, in bytes of UTF-8.

    Raises:
        JobFailed: None answered, or one broke off in the middle; worth another attempt.
        JobRefused: The question or the configuration is at fault, or the answer is too long.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    fallbacks: list[Fallback] = []
    for provider in providers:
        collected = _Collected(write, limit_bytes)
        try:
            # Closed here and now, so that an error on our side ends the exchange with the provider at once.
            with contextlib.closing(cast("Generator[str | Usage]", provider.stream(request))) as stream:
                for item in stream:
                    collected.take(item)
        except ProviderUnavailable as error:
            if collected.text != "":
                raise JobFailed(f"{provider.name} broke off in the middle: {error.message}") from error
            fallbacks.append(Fallback(provider=provider.name, reason=error.message))
            note(f"3ox: {provider.name} does not answer: {error.message}")
            continue
        if collected.usage is None:
            raise LookupError(f"the provider {provider.name} ended without its usage")
        return Answer(text=collected.text, provider=provider.name, usage=collected.usage, fallbacks=fallbacks)
    raise JobFailed(
        f"no provider answers: {' '.join(f'{item.provider}: {item.reason}' for item in fallbacks)}",
        remedy="Try again later, or configure another provider.",
    )


class _Collected:
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
