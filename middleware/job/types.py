"""The typed payload of each job type: what the actor needs, and nothing else.

To add a job type, add its payload here, its tagged job in ``schema.py`` and its actor in ``actors/``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

NonEmpty = Annotated[str, Meta(min_length=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Payload(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of all payloads: immutable, strict, defaults left out when encoded."""


class AskPayload(Payload, frozen=True, kw_only=True):
    """A question for a language model."""

    prompt: NonEmpty
    system: str | None = None
    provider: str | None = None
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None


class IngestFilePayload(Payload, frozen=True, kw_only=True):
    """A file that the station has taken in.

    Attributes:
        path: Where it lies now, under IN1N.3OX.
        name: Its own name.
        sha256: Of its content.
        size_bytes: Of its content.
        note: What whoever dropped it wrote about it.
        folder: The folder below IN1N.3OX in which it was dropped, parts separated by slashes.
        media_type: What its content and name say that it is.
    """

    path: NonEmpty
    name: NonEmpty
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]
    note: str | None = None
    folder: str = ""
    media_type: str = ""


class TelegramPayload(Payload, frozen=True, kw_only=True):
    """A message from an allowed Telegram chat."""

    chat_id: int
    text: NonEmpty
    message_id: int | None = None
    update_id: int | None = None


class RestRequestPayload(Payload, frozen=True, kw_only=True):
    """A request to an endpoint that 3ox.toml names."""

    endpoint: NonEmpty
    method: str = "POST"
    body: Any = None
    headers: dict[str, str] = {}
    query: dict[str, str] = {}


class ShellCmdPayload(Payload, frozen=True, kw_only=True):
    """A command, as an argument list; no shell ever parses it."""

    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: str | None = None


class HeartbeatPayload(Payload, frozen=True, kw_only=True):
    """An end-to-end canary: enqueued, fetched, settled; its round trip is recorded."""

    nonce: str = ""


class TaskCustomPayload(Payload, frozen=True, kw_only=True):
    """A task for a project's command, for instance a coding agent."""

    task: NonEmpty


class DeliverPayload(Payload, frozen=True, kw_only=True):
    """A result on its way to one sink; made by the script that ends the job, see ``prelude.lua``."""

    job_id: NonEmpty
    sink: NonEmpty
