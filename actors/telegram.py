"""``telegram``: answer a message from an allowed chat, as ``ask`` does, in the chat's own session.

The bot (``ingress.telegram``) makes the job with the session ``tg_CHAT`` and shows its answer in the chat.
"""

from __future__ import annotations

from actors.ask import AskResult, ask
from middleware.job.types import AskPayload, TelegramPayload


def telegram(payload: TelegramPayload) -> AskResult:
    """Ask the configured providers what the message says; the job's session goes along.

    Raises:
        JobFailed: No provider answered; worth another attempt.
        JobRefused: Nothing is configured, or the question is refused.
    """
    return ask(AskPayload(prompt=payload.text))
