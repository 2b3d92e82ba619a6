"""``ask``: a question for a language model. The actor is ``actors.ask.ask``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from middleware.job.keys import LLM_QUEUE
from middleware.job.types import JOB_TYPES, JobType, NonEmpty, Payload
from ops.settings.work import TypeOverrides


class AskPayload(Payload, frozen=True, kw_only=True):
    """A question for a language model."""

    prompt: NonEmpty
    system: str | None = None
    provider: str | None = None
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None


JOB_TYPES.add(
    JobType(
        name="ask",
        summary="A question for a language model.",
        payload=AskPayload,
        result="actors.llm.results:AskResult",
        actor="actors.ask:ask",
        queue=LLM_QUEUE,
        limits=TypeOverrides(max_retries=2),
        delivers=True,
        title=("prompt",),
        result_texts=("text",),
        answers=True,
        example={"prompt": "Why is the sky blue?"},
    )
)
