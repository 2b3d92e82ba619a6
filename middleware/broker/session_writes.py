"""Writes into sessions, see ``remember.lua``; ``middleware.job.sessions`` reads and clears them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from middleware.broker.scripts import Scripts
from middleware.job.sessions import SESSIONS_MAX, SessionMessage
from ops.errors import StoreError


def remember(
    scripts: Scripts,
    session_id: str,
    question: SessionMessage,
    answer: SessionMessage,
    *,
    worker_id: str,
    attempt: int,
    messages_max: int,
    ttl_s: int,
) -> bool:
    """Write a question and its answer into a session, atomically and once per job.

    Args:
        scripts: The store functions.
        session_id: Id of the session.
        question: What was asked; with the id of the job.
        answer: What was answered; with the same id.
        worker_id: Worker that answers; it has to hold the job.
        attempt: Attempt of the job.
        messages_max: Number of messages that the session keeps.
        ttl_s: Retention of the session after this message.

    Returns:
        Whether they were written; False if the job is now another worker's.

    Raises:
        StoreUnreachable: Calling again is safe.
    """
    reply = scripts.run(
        "remember",
        worker_id,
        question.job_id,
        attempt,
        session_id,
        msgspec.json.encode(question),
        msgspec.json.encode(answer),
        messages_max,
        ttl_s * 1000,
        SESSIONS_MAX,
        round(datetime.fromisoformat(question.at).timestamp() * 1000),
    )
    if reply not in {b"remembered", b"superseded"}:
        raise StoreError(f"The function remember returned an unknown reply: {reply!r}.")
    return bool(reply == b"remembered")
