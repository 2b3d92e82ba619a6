"""``ask``: put a question to a language model, the answer streaming as it comes."""

from __future__ import annotations

from msgspec import Struct

from actors.context import current_job, settings
from actors.llm.fallback import Fallback, ask_in_order
from actors.llm.provider import AskRequest
from middleware.job.payloads import AskPayload


class AskResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer.

    Attributes:
        text: The answer.
        provider: Who gave it.
        model: With which model.
        tokens_in: Length of the question, if the provider says.
        tokens_out: Length of the answer, if the provider says.
        finish_reason: Why it ended there: ``stop``, ``length`` (``max_tokens`` was reached), ...
        fallbacks: Providers that were asked before and did not answer.
    """

    text: str
    provider: str
    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None
    fallbacks: list[Fallback] = []


def ask(payload: AskPayload) -> AskResult:
    """Ask the configured providers, in order, and stream the answer to the job's output.

    Raises:
        JobFailed: No provider answered; worth another attempt.
        JobRefused: Nothing is configured, or the question is refused.
    """
    # Late, so that a process that never asks does not pay for HTTP and TLS.
    from actors.llm.choose import choose

    context = current_job()
    loaded = settings()
    answer = ask_in_order(
        choose(loaded, payload.provider),
        AskRequest(
            prompt=payload.prompt,
            system=payload.system,
            model=payload.model,
            max_tokens=payload.max_tokens,
        ),
        write=context.write,
        note=lambda line: context.log(line, stream="err"),
        limit_bytes=loaded.settings.result_max_bytes,
    )
    return AskResult(
        text=answer.text,
        provider=answer.provider,
        model=answer.usage.model,
        tokens_in=answer.usage.tokens_in,
        tokens_out=answer.usage.tokens_out,
        finish_reason=answer.usage.finish_reason,
        fallbacks=answer.fallbacks,
    )
