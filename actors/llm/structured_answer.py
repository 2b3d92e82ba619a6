"""Structured answers: a model's answer is decoded into a struct and validated.

class ModelDecision(msgspec.Struct):
    action: Literal["keep", "drop"]
    reason: Annotated[str, Meta(max_length=200)]

found = ask_structured(Verdict, "The file is empty. Keep or drop it?", system="You keep files in order.")
found.value.action
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from actors.context import settings
from actors.llm.fallback import Answer, AskOptions, ask_in_order, job_ask_options
from actors.llm.provider import AskRequest, Message, Provider
from actors.llm.provider_selection import choose
from actors.llm.results import Fallback
from ops.errors import JobFailed

#: Characters of an invalid answer that are sent to the model again, and that an error quotes.
_REPEATED_CHARS = 2_000
_EXCERPT_CHARS = 120

S = TypeVar("S", bound=Struct)


class InvalidAnswer(JobFailed):
    """The model's answer did not match the schema, even after its error was sent back.

    Use a better model (``[ask]`` in 3ox.toml), or decide without one.
    """


class StructuredAnswer(Struct, Generic[S], frozen=True, kw_only=True):
    """A validated answer.

    Attributes:
        value: The decoded answer; it satisfies the constraints of its type.
        provider: Name of the provider.
        model: Name of the model.
        tokens_in: Input tokens of all requests together; None if not reported.
        tokens_out: Output tokens of all answers together; None if not reported.
        cost_usd: Cost of all answers in US dollars; None if the price is unknown.
        repaired: Whether the first answer was not valid and the second was.
        fallbacks: Providers that were tried before and did not answer.
    """

    value: S
    provider: str
    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    repaired: bool = False
    fallbacks: list[Fallback] = []


def ask_structured(
    kind: type[S],
    prompt: str,
    *,
    system: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
) -> StructuredAnswer[S]:
    """Ask a model, within a job, for an answer that matches a type; an invalid answer is repaired once.

    Uses the providers of ``ask`` with their order, fallback, budgets and rate limits. The offline model is
    used only if ``[ask] providers`` lists it, because its answers are unreliable. Nothing is written to the
    job's output. The prompt may quote untrusted text: the schema limits the form of the answer, not its
    sense, so the caller must check paths and the like before acting on them.

    Args:
        kind: Type of the answer; its JSON schema, with all constraints, is sent to the model.
        prompt: The prompt.
        system: System prompt.
        provider: Name of the only provider to ask.
        model: Model to use; the provider's default when None.
        max_tokens: Maximum length of each answer, in tokens.

    Raises:
        NoProvider: No provider is configured (``actors.llm.provider_selection``); decide without one.
        InvalidAnswer: The answer was not valid twice; decide without a model.
        BudgetSpent: The budget does not cover the request (``actors.llm.budget``).
        JobRefused: A provider is not configured, or rejects the request.
        JobParked: No provider answers, and one named the time to retry; let it propagate.
        JobFailed: No provider answers; worth a retry.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    providers = choose(settings(), provider, fit_to_decide=True)
    options = job_ask_options(write=lambda _: None)
    request = AskRequest(
        messages=[Message("user", prompt)],
        system=system,
        model=model,
        max_tokens=max_tokens,
        schema=schema_of(kind),
    )
    first = ask_in_order(providers, request, options)
    value, fault = _decode(kind, first.text)
    if value is not None:
        return _structured(value, [first])
    second = _repair(providers, request, options, first, fault)
    value, fault = _decode(kind, second.text)
    if value is not None:
        return _structured(value, [first, second])
    excerpt = " ".join(second.text.split())[:_EXCERPT_CHARS]
    raise InvalidAnswer(
        f"{second.provider} gave two answers that are not valid: {fault} in {excerpt!r}.",
        remedy="Use a better model ([ask] in 3ox.toml).",
    )


def _repair(
    providers: list[Provider], request: AskRequest, options: AskOptions, first: Answer, fault: str
) -> Answer:
    """Send an invalid answer back to its provider with its error, and return the second answer."""
    same = [item for item in providers if item.name == first.provider]
    messages = [
        *request.messages,
        Message("assistant", first.text[:_REPEATED_CHARS] or "{}"),
        Message("user", f"That is not valid: {fault}. Answer again, with the JSON document alone."),
    ]
    named = request.model if first.provider == providers[0].name else None
    return ask_in_order(same, msgspec.structs.replace(request, messages=messages, model=named), options)


def schema_of(kind: type[Struct]) -> dict[str, Any]:
    """Return the JSON schema of a struct as an object, not as a reference to one.

    Args:
        kind: The struct.
    """
    schema = msgspec.json.schema(kind)
    defs = dict(schema.get("$defs", {}))
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = reference.removeprefix("#/$defs/")
    top = dict(defs[name])
    if f'"{reference}"' not in msgspec.json.encode(defs).decode():
        del defs[name]
    return {**top, "$defs": defs} if defs else top


def _decode(kind: type[S], text: str) -> tuple[S | None, str]:
    """Return the value of an answer, or None and its fault."""
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        return None, "it contains no JSON object"
    # Some models wrap their JSON in a code fence or an explanation, whatever the prompt says.
    try:
        return msgspec.json.decode(text[start : end + 1].encode("utf-8", "replace"), type=kind), ""
    except msgspec.ValidationError as error:
        return None, str(error)
    except msgspec.DecodeError as error:
        return None, f"invalid JSON ({error})"


def _structured(value: S, answers: list[Answer]) -> StructuredAnswer[S]:
    last = answers[-1]
    return StructuredAnswer(
        value=value,
        provider=last.provider,
        model=last.usage.model,
        tokens_in=_sum([answer.usage.tokens_in for answer in answers]),
        tokens_out=_sum([answer.usage.tokens_out for answer in answers]),
        cost_usd=_sum([answer.cost_usd for answer in answers]),
        repaired=len(answers) > 1,
        fallbacks=[item for answer in answers for item in answer.fallbacks],
    )


N = TypeVar("N", int, float)


def _sum(parts: list[N | None]) -> N | None:
    """Return the sum; None if one part is unknown."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
