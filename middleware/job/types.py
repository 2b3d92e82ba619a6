"""The job types: each is declared once, here, as its payload and one ``JobType``.

From the declaration follow the job's struct and its decoding, the errors, the REST body and filter, the
default limits, whether the policy guards it and whether its result is delivered. To add a type, add both at
the end, and its actor in ``actors/``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from middleware.job.registry import JobType, JobTypes, Payload
from ops.settings.work import TypeOverrides

__all__ = ["DELIVER", "JOB_TYPES", "JobType", "Payload"]

NonEmpty = Annotated[str, Meta(min_length=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

#: Name of the job type that delivers a result.
DELIVER = "deliver"
#: Commands are not retried by default: a failed one may already have had effects.
_NO_RETRY = 0

JOB_TYPES = JobTypes()


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
        limits=TypeOverrides(max_retries=2),
        delivers=True,
    )
)


class IngestFilePayload(Payload, frozen=True, kw_only=True):
    """A file from the drop folder.

    Attributes:
        path: Where it is now, under IN1N.3OX.
        name: Its name when it was dropped.
        sha256: Hash of its content.
        size_bytes: Size of its content.
        note: Text that was dropped or sent with it.
        folder: The folder below IN1N.3OX in which it was dropped, parts separated by slashes.
        media_type: Media type, from its content and name.
    """

    path: NonEmpty
    name: NonEmpty
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]
    note: str | None = None
    folder: str = ""
    media_type: str = ""


JOB_TYPES.add(
    JobType(
        name="ingest.file",
        summary="A file of the workspace to ingest; to upload one, use /v1/files.",
        payload=IngestFilePayload,
        limits=TypeOverrides(max_retries=6),
        delivers=True,
    )
)


class TelegramPayload(Payload, frozen=True, kw_only=True):
    """A message from an allowed Telegram chat."""

    chat_id: int
    text: NonEmpty
    message_id: int | None = None
    update_id: int | None = None


JOB_TYPES.add(
    JobType(name="telegram", summary="A message from a chat.", payload=TelegramPayload, delivers=True)
)


class RestRequestPayload(Payload, frozen=True, kw_only=True):
    """A request to an endpoint of 3ox.toml."""

    endpoint: NonEmpty
    method: str = "POST"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


JOB_TYPES.add(
    JobType(
        name="rest.request",
        summary="A request to an endpoint of 3ox.toml.",
        payload=RestRequestPayload,
        delivers=True,
    )
)


class ShellCmdPayload(Payload, frozen=True, kw_only=True):
    """A command, as an argument list; it is not parsed by a shell."""

    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None


JOB_TYPES.add(
    JobType(
        name="shell.cmd",
        summary="A command to run, if the policy allows it.",
        payload=ShellCmdPayload,
        limits=TypeOverrides(max_retries=_NO_RETRY),
        runs_programs=True,
    )
)


class HeartbeatPayload(Payload, frozen=True, kw_only=True):
    """A canary that is enqueued, fetched and settled; its round trip is recorded."""

    nonce: str = ""


JOB_TYPES.add(
    JobType(
        name="heartbeat",
        summary="A canary.",
        payload=HeartbeatPayload,
        default_payload=HeartbeatPayload(),
        limits=TypeOverrides(timeout_s=30.0, max_retries=_NO_RETRY),
    )
)


class TaskCustomPayload(Payload, frozen=True, kw_only=True):
    """A task for a project's command, for instance a coding agent."""

    task: NonEmpty


JOB_TYPES.add(
    JobType(
        name="task.custom",
        summary="A task for a project, if the policy allows it.",
        payload=TaskCustomPayload,
        needs_project=True,
        limits=TypeOverrides(timeout_s=3600.0, max_retries=_NO_RETRY),
        runs_programs=True,
        delivers=True,
    )
)


class DeliverPayload(Payload, frozen=True, kw_only=True):
    """The delivery of a result to one destination; created by the end of the job, see ``prelude.lua``."""

    job_id: NonEmpty
    sink: NonEmpty


JOB_TYPES.add(
    JobType(
        name=DELIVER,
        summary="The delivery of a job's result to one destination.",
        payload=DeliverPayload,
        # About a day of retries, at most 30 minutes apart: a receiver may be down for a day.
        limits=TypeOverrides(timeout_s=120.0, max_retries=100, backoff_max_s=1800.0),
        internal=True,
    )
)
