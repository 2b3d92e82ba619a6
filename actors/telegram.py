"""``telegram``: declared, so that the schema is whole; this version cannot carry it out yet."""

from __future__ import annotations

from typing import NoReturn

from middleware.job.payloads import TelegramPayload
from ops.errors import JobRefused


def telegram(payload: TelegramPayload) -> NoReturn:  # noqa: ARG001 (every actor takes its payload)
    """Refuse the job.

    Raises:
        JobRefused: Always.
    """
    raise JobRefused(
        "jobs of the type telegram cannot be carried out yet: the Telegram bot is missing in this version.",
        remedy="Use a version of the bridge that brings it.",
    )
