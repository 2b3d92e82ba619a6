"""``ingest.file``: a file from the drop folder. The actor is ``actors.ingest_file.ingest_file``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from middleware.job.keys import LLM_QUEUE, QUEUE
from middleware.job.types import JOB_TYPES, JobType, NonEmpty, Payload
from ops.settings.model_services import configured_services
from ops.settings.station import pattern_matches
from ops.settings.table import Settings
from ops.settings.work import TypeOverrides

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class IngestFilePayload(Payload, frozen=True, kw_only=True):
    """A file, a symbolic link or an empty folder from the drop folder.

    Attributes:
        path: Where it is now, under IN1N.3OX.
        name: Its name when it was dropped.
        sha256: Hash of its content; of a link, of its target; of a folder, of nothing.
        size_bytes: Size of its content.
        note: Text that was dropped or sent with it.
        folder: The folder below IN1N.3OX in which it was dropped, parts separated by slashes.
        media_type: Media type, from its content and name.
        kind: What it is.
        link: Target of a link.
        same_as: Id of an earlier job of the same content.
        reuse: Whether a decision of a model in that job may be used.
        left: Entries of its folder that stay in IN1N.3OX, with the reason.
    """

    path: NonEmpty
    name: NonEmpty
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]
    note: str | None = None
    folder: str = ""
    media_type: str = ""
    kind: Literal["file", "link", "folder"] = "file"
    link: str = ""
    same_as: str = ""
    reuse: bool = False
    left: list[str] = field(default_factory=list)


def _queue(payload: IngestFilePayload, settings: Settings) -> str:
    """Return the queue of a file: that of the model jobs if a model server is going to decide about it."""
    station, ask = settings.station, settings.ask
    ruled = any(
        pattern_matches(rule.match, name=payload.name, folder=payload.folder, media_type=payload.media_type)
        for rule in station.rules
    )
    if ruled or not station.understand or not configured_services(ask, ask.providers):
        return QUEUE
    return LLM_QUEUE


JOB_TYPES.add(
    JobType(
        name="ingest.file",
        summary="A file of the workspace to ingest; to upload one, use /v1/files.",
        payload=IngestFilePayload,
        result="actors.ingest.decision:IngestResult",
        actor="actors.ingest_file:ingest_file",
        choose_queue=_queue,
        other_queues=(LLM_QUEUE,),
        limits=TypeOverrides(max_retries=6),
        delivers=True,
        title=("name", "note"),
        example={
            "path": "/home/ada/cmd.bridge/IN1N.3OX/a.txt",
            "name": "a.txt",
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "size_bytes": 0,
        },
    )
)
