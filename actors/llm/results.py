"""Result of ``ask`` and ``telegram``."""

from __future__ import annotations

from msgspec import Struct


class Fallback(Struct, frozen=True, kw_only=True):
    """A provider that was tried and did not answer.

    Attributes:
        provider: Its name.
        reason: Its error, one sentence.
    """

    provider: str
    reason: str


class AskResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of ``ask`` and ``telegram``.

    Attributes:
        text: The answer.
        provider: Name of the provider that answered.
        model: Name of the model.
        tokens_in: Input tokens; None if the provider does not report them.
        tokens_out: Output tokens; None if the provider does not report them.
        cost_usd: Cost in US dollars; None if the price is unknown.
        finish_reason: Why the answer ended: ``stop``, ``length`` (``max_tokens`` was reached), ...
        note: Hint for the reader, such as that the answer comes from the offline model.
        fallbacks: Providers that were tried before and did not answer.
    """

    text: str
    provider: str
    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    finish_reason: str | None = None
    note: str = ""
    fallbacks: list[Fallback] = []
