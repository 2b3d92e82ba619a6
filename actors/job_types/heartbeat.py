"""``heartbeat``: the end-to-end health check of queue and workers, and the no-op of the benchmark."""

from __future__ import annotations

import functools
import os
import time
from datetime import UTC, datetime

from msgspec import Struct

from actors.context import current_job
from middleware.job.types import JOB_TYPES, NO_RETRY, JobType, Payload
from ops.settings.work import TypeOverrides


class HeartbeatPayload(Payload, frozen=True, kw_only=True):
    """A canary that is enqueued, fetched and settled; its round trip is recorded."""

    nonce: str = ""


class HeartbeatResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of ``heartbeat``; empty fields are omitted.

    Attributes:
        nonce: The nonce of the payload.
        worker_id: The worker that ran the job.
        host: Host of the worker.
        pid: Pid of the worker.
        at: When, UTC.
    """

    nonce: str = ""
    worker_id: str = ""
    host: str
    pid: int
    at: str


def heartbeat(payload: HeartbeatPayload) -> HeartbeatResult:
    """Return who ran the job, where and when."""
    return HeartbeatResult(
        nonce=payload.nonce,
        worker_id=current_job().worker_id,
        host=_host(),
        pid=os.getpid(),
        at=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
    )


@functools.cache
def _host() -> str:
    return os.uname().nodename


JOB_TYPES.add(
    JobType(
        name="heartbeat",
        summary="A canary.",
        payload=HeartbeatPayload,
        result=HeartbeatResult,
        actor=heartbeat,
        default_payload=HeartbeatPayload(),
        limits=TypeOverrides(timeout_s=30.0, max_retries=NO_RETRY),
        title=("nonce",),
        example={"nonce": "hello"},
    )
)
