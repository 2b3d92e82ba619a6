"""Decisions: an answer of a fixed form, checked before anybody acts on it.

class ModelDecision(msgspec.Struct):
    action: Literal["keep", "drop"]
    reason: Annotated[str, Meta(max_length=200)]

found = decide(Verdict, "The file is empty. What shall be done with it?", system="You keep files in order.")
found.value.action
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from actors.context import settings
from actors.llm.fallback import Answer, AskOptions, Fallback, ask_in_order, job_ask_options
from actors.llm.provider import AskRequest, Message, Provider
from actors.llm.provider_selection import choose
from ops.errors import JobFailed

#: Of a wrong answer, so much is shown to the model again, and told in the error.
_SHOWN_CHARS = 2_000
_TOLD_CHARS = 120

S = TypeVar("S", bound=Struct)


class InvalidAnswer(JobFailed):
    """The model's answer did not have the right form, not even when it was told what was wrong."""


class Decision(Struct, Generic[S], frozen=True, kw_only=True):
    """A decision, and who made it.

    Attributes:
        value: What was decided: valid as far as its type says.
        provider: Who decided.
        model: With which model.
        tokens_in: Length of the questions, all tries together, if the provider says.
        tokens_out: Length of the answers, likewise.
        cost_usd: What they cost, in dollars; None if the price is not known.
        repaired: The first answer was not valid, the second was.
        fallbacks: Providers that were asked before and did not answer.
    """

    value: S
    provider: str
    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    repaired: bool = False
    fallbacks: list[Fallback] = []


def decide(
    kind: type[S],
    prompt: str,
    *,
    system: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
) -> Decision[S]:
    """Have a model decide, within a job: its answer is bound to a schema, checked, and repaired once.

    The providers are those of ``ask``, in their order, with its fallback, budgets and parking; the offline
    model is asked only if ``[ask] providers`` lists it, since its decisions are worth little. Nothing is
    written to the job's output. What the prompt quotes may be hostile: the schema bounds what can be
    answered, not what is sensible, so paths and the like have to be checked by whoever acts.

    Args:
        kind: What is to be decided; its JSON schema goes to the model, constraints and all.
        prompt: The question.
        system: How to answer.
        provider: The only provider to ask.
        model: Model to use; the provider's own when None.
        max_tokens: Bound on each answer.

    Returns:
        The decision.

    Raises:
        NoProvider: No model is configured (``actors.llm.provider_selection``); decide without one.
        InvalidAnswer: The answer was not valid twice; decide without a model.
        BudgetSpent: The budget does not cover it (``actors.llm.budget``).
        JobRefused: A provider is not configured, or refuses the question.
        JobParked: No provider answers, and one says when to come back; let it pass.
        JobFailed: No provider answers; worth another attempt.
        JobInterrupted: The job has been cancelled or has run out of time.
    """
    providers = choose(settings(), provider, fit_to_decide=True)
    asking = job_ask_options(write=lambda _: None)
    request = AskRequest(
        messages=[Message("user", prompt)],
        system=system,
        model=model,
        max_tokens=max_tokens,
        schema=schema_of(kind),
    )
    first = ask_in_order(providers, request, asking)
    value, complaint = _read(kind, first.text)
    if value is not None:
        return _decision(value, [first])
    second = _ask_again(providers, request, asking, first, complaint)
    value, complaint = _read(kind, second.text)
    if value is not None:
        return _decision(value, [first, second])
    said = " ".join(second.text.split())[:_TOLD_CHARS]
    raise InvalidAnswer(
        f"{second.provider} gave no valid decision, twice: {complaint}; it said {said!r}.",
        remedy="Use a better model ([ask] in 3ox.toml).",
    )


def _ask_again(
    providers: list[Provider], request: AskRequest, asking: AskOptions, first: Answer, complaint: str
) -> Answer:
    """Ask the one that answered wrongly once more: it is there, and knows what it said."""
    same = [item for item in providers if item.name == first.provider]
    again = [
        *request.messages,
        Message("assistant", first.text[:_SHOWN_CHARS] or "{}"),
        Message("user", f"That is not valid: {complaint}. Answer again, with the JSON document alone."),
    ]
    named = request.model if first.provider == providers[0].name else None
    return ask_in_order(same, msgspec.structs.replace(request, messages=again, model=named), asking)


def schema_of(kind: type[Struct]) -> dict[str, Any]:
    """Give the JSON schema of a struct, itself an object and not a reference to one.

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


def _read(kind: type[S], text: str) -> tuple[S | None, str]:
    """Read an answer; gives the value, or None and what is wrong."""
    start, end = text.find("{"), text.rfind("}")
    if start == -1 or end < start:
        return None, "it holds no JSON object"
    # Some models put their JSON into a fence or an explanation, however often they are asked not to.
    try:
        return msgspec.json.decode(text[start : end + 1].encode("utf-8", "replace"), type=kind), ""
    except msgspec.ValidationError as error:
        return None, str(error)
    except msgspec.DecodeError as error:
        return None, f"it is no JSON ({error})"


def _decision(value: S, answers: list[Answer]) -> Decision[S]:
    last = answers[-1]
    return Decision(
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
    """Add up; None if one of them is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
