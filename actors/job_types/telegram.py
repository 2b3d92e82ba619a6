"""``telegram``: a message from an allowed Telegram chat. The actor is ``actors.ask.telegram``."""

from __future__ import annotations

from middleware.job.keys import LLM_QUEUE
from middleware.job.types import JOB_TYPES, JobType, NonEmpty, Payload


class TelegramPayload(Payload, frozen=True, kw_only=True):
    """A message from an allowed Telegram chat."""

    chat_id: int
    text: NonEmpty
    message_id: int | None = None
    update_id: int | None = None


JOB_TYPES.add(
    JobType(
        name="telegram",
        summary="A message from a chat.",
        payload=TelegramPayload,
        result="actors.llm.results:AskResult",
        actor="actors.ask:telegram",
        queue=LLM_QUEUE,
        delivers=True,
        title=("text",),
        result_texts=("text",),
        answers=True,
        example={"chat_id": 7, "text": "Why is the sky blue?"},
    )
)
