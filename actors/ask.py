"""``ask`` and ``telegram``: ask a language model and stream its answer to the job's output."""

from __future__ import annotations

from actors.context import current_job, settings
from actors.job_types.ask import AskPayload
from actors.job_types.telegram import TelegramPayload
from actors.llm.budget import BudgetSpent
from actors.llm.fallback import Answer, ask_in_order, job_ask_options
from actors.llm.memory import recall
from actors.llm.provider import AskRequest, Message
from actors.llm.provider_selection import choose
from actors.llm.results import AskResult


def ask(payload: AskPayload) -> AskResult:
    """Ask the configured providers in order and stream the answer to the job's output.

    Raises:
        JobParked: No provider answered, and at least one named the time to retry.
        JobFailed: No provider answered; worth a retry.
        JobRefused: No provider is configured, or the request was refused.
        BudgetSpent: The budget does not cover the request, or not the whole answer.
    """
    context = current_job()
    memory = recall(payload.prompt)
    if memory.reply is not None:
        context.write(memory.reply)
        return AskResult(text=memory.reply, provider="session", model="")
    try:
        answer = ask_in_order(
            choose(settings(), payload.provider),
            AskRequest(
                messages=[*memory.messages, Message("user", payload.prompt)],
                system=payload.system,
                model=payload.model,
                max_tokens=payload.max_tokens,
            ),
            job_ask_options(write=context.write),
        )
    except BudgetSpent as error:
        if error.answer is not None:
            error.result = _result(error.answer)
        raise
    memory.remember(answer.text)
    return _result(answer)


def _result(answer: Answer) -> AskResult:
    return AskResult(
        text=answer.text,
        provider=answer.provider,
        model=answer.usage.model,
        tokens_in=answer.usage.tokens_in,
        tokens_out=answer.usage.tokens_out,
        cost_usd=answer.cost_usd,
        finish_reason=answer.usage.finish_reason,
        note=answer.note,
        fallbacks=answer.fallbacks,
    )


def telegram(payload: TelegramPayload) -> AskResult:
    """Ask the configured providers with the text of a Telegram message, within the job's session.

    Raises:
        JobParked: No provider answered, and at least one named the time to retry.
        JobFailed: No provider answered; worth a retry.
        JobRefused: No provider is configured, or the request was refused.
    """
    return ask(AskPayload(prompt=payload.text))
