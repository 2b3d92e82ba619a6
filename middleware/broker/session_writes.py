"""Writes into sessions, see ``remember.lua``; read and cleared they are in ``middleware.job.sessions``."""

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
    """Write a question and its answer into a session, in one step and once per job.

    Args:
        scripts: Of the bridge.
        session_id: Which session.
        question: What was asked; its ``job_id`` is the answer's too.
        answer: What was answered.
        worker_id: Who answers: it has to hold the job.
        attempt: Of the job.
        messages_max: How many messages the session keeps.
        ttl_s: For how long it is kept after this.

    Returns:
        Whether it was written; not if the job is another worker's by now.

    Raises:
        StoreUnreachable: No answer; the same again does no harm.
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
        raise StoreError(f"the remember script gave an unknown reply: {reply!r}.")
    return bool(reply == b"remembered")
