"""Makes the job of a claimed file: its hash, its type, its note, its idempotency key."""

from __future__ import annotations

import hashlib
import os
import pwd
from typing import NamedTuple

from ingress.station.claims import Claim
from middleware.job.schema import Job, make_job
from ops.dropfolder import NOTE_MAX_BYTES
from ops.files import Pulse, open_file
from ops.filetype import HEAD_BYTES, media_type_of_head
from ops.settings.station import StationSettings

_CHUNK_BYTES = 1_048_576
_KEY_PREFIX = "file:"


class Changing(OSError):
    """The file is still being written to."""


class Content(NamedTuple):
    """What reading a file through has told.

    Attributes:
        sha256: Of its content.
        size_bytes: Of its content.
        media_type: By its beginning and its name.
        owner: Login name of its owner, or the number.
    """

    sha256: str
    size_bytes: int
    media_type: str
    owner: str


def read_through(claim: Claim, pulse: Pulse) -> Content:
    """Read a claimed file once, in pieces.

    Args:
        claim: The file.
        pulse: Called after each piece.

    Raises:
        Changing: It was written to meanwhile.
        OSError: It cannot be read, or is no regular file.
    """
    fd = open_file(claim.path)
    try:
        before = os.fstat(fd)
        digest, size_bytes, head = hashlib.sha256(), 0, b""
        while piece := os.read(fd, _CHUNK_BYTES):
            head = head if size_bytes else piece[:HEAD_BYTES]
            digest.update(piece)
            size_bytes += len(piece)
            pulse()
        after = os.fstat(fd)
    finally:
        os.close(fd)
    was, now = ((info.st_size, info.st_mtime_ns) for info in (before, after))
    if was != now or size_bytes != after.st_size:
        raise Changing(f"{claim.name!r} is still being written to")
    return Content(
        digest.hexdigest(), size_bytes, media_type_of_head(head, claim.name), _login_name(after.st_uid)
    )


def _login_name(uid: int) -> str:
    known = _Owners.names.get(uid)
    if known is None:
        try:
            known = pwd.getpwuid(uid).pw_name
        except KeyError:
            known = str(uid)
        _Owners.names[uid] = known
    return known


class _Owners:
    """Login names by number; a machine has few."""

    names: dict[int, str] = {}  # noqa: RUF012 (a cache of the process)


def note_of(claim: Claim) -> str | None:
    """Give the text of a claim's note.

    Raises:
        OSError: It cannot be read.
    """
    if claim.note is None:
        return None
    with os.fdopen(open_file(claim.note), "rb") as file:
        data = file.read(NOTE_MAX_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Notes of old editors are in the code page of the west; this one reads any byte.
        return data.decode("latin-1")


def content_key(settings: StationSettings, claim: Claim, sha256: str, *, after: str = "") -> str | None:
    """Give the idempotency key of a file: the same content is taken once.

    Args:
        settings: ``same_content`` says how far that goes.
        claim: The file.
        sha256: Of its content.
        after: The job that had the key before, when its result is not there (any more).

    Returns:
        The key; None if the same content is always taken again.
    """
    if settings.same_content == "again":
        return None
    named = ""
    if settings.same_content == "by_name":
        named = ":" + hashlib.sha256(f"{claim.folder}/{claim.name}".encode()).hexdigest()[:16]
    return f"{_KEY_PREFIX}{sha256}{named}{f':after:{after}' if after else ''}"


def job_of(claim: Claim, content: Content, note: str | None, key: str | None) -> Job:
    """Make the job of a claimed file.

    Raises:
        InvalidJob: It does not fit the schema.
    """
    return make_job(
        "ingest.file",
        {
            "path": str(claim.path),
            "name": claim.name,
            "sha256": content.sha256,
            "size_bytes": content.size_bytes,
            "note": note,
            "folder": claim.folder,
            "media_type": content.media_type,
        },
        job_id=claim.job_id,
        source="station",
        actor=content.owner,
        trust="untrusted",
        idempotency_key=key,
    )
