"""The user's own actors of a chaos run: steps of pipelines, members of groups, and their callbacks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq

from actors import broker  # noqa: F401 (it is Dramatiq's global broker from here on)
from actors.context import current_job
from tests.chaos.task import Attempt

#: Directory of the journal and the locks.
FILES = "CHAOS_FILES"
STEPS, CALLS = "chaos-steps", "chaos-calls"


@contextmanager
def noted_attempt() -> Iterator[None]:
    """Note start and end of the running job."""
    job, files = current_job(), os.environ[FILES]
    attempt = Attempt(f"{files}/journal", f"{files}/locks", job.job_id, job.worker_id)
    try:
        attempt.start()
        yield
        attempt.end()
    finally:
        attempt.close()


@dramatiq.actor(queue_name=STEPS, throws=ValueError)
def step(before: str, *, chain: str, at: int, seconds: float) -> str:
    """Be one step of a pipeline, which gets what the one before it returned."""
    wanted = f"{chain}/{at - 1}" if at else ""
    if before != wanted:
        raise ValueError(f"step {at} got {before!r}, not {wanted!r}")
    with noted_attempt():
        time.sleep(seconds)  # the work of this job
    return f"{chain}/{at}"


@dramatiq.actor(queue_name=STEPS)
def member(*, chain: str, at: int, seconds: float) -> str:
    """Be a member of a group."""
    with noted_attempt():
        time.sleep(seconds)  # the work of this job
    return f"{chain}/{at}"


@dramatiq.actor(queue_name=STEPS, min_backoff=50, max_backoff=500, on_success="succeeded", on_failure="noted")
def uneven(*, chain: str, seconds: float) -> str:
    """Fail in the first attempt."""
    with noted_attempt():
        time.sleep(seconds)  # the work of this job
        if current_job().attempt == 1:
            raise RuntimeError(f"the first attempt of {chain} fails")
    return chain


@dramatiq.actor(
    queue_name=STEPS,
    min_backoff=50,
    max_backoff=500,
    max_retries=1,
    on_success="succeeded",
    on_failure="noted",
)
def doomed(*, chain: str) -> None:
    """Fail in every attempt."""
    with noted_attempt():
        raise RuntimeError(f"each attempt of {chain} fails")


@dramatiq.actor(queue_name=CALLS)
def gathered(*, chain: str, at: int) -> str:
    """Be a callback of a group."""
    with noted_attempt():
        return f"{chain}/{at}"


@dramatiq.actor(queue_name=CALLS)
def succeeded(message: dict[str, Any], result: Any) -> str:
    """Be called back after success."""
    with noted_attempt():
        return f"{message['message_id']} returned {result!r}"


@dramatiq.actor(queue_name=CALLS)
def noted(message: dict[str, Any], error: dict[str, Any]) -> str:
    """Be called back after each failed attempt."""
    with noted_attempt():
        return f"{message['message_id']} raised {error['type']}"


ACTORS = (step, member, uneven, doomed, gathered, succeeded, noted)
