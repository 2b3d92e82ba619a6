"""Build the job of a claimed file: content hash, media type, note, idempotency key."""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
from typing import NamedTuple

from ingress.station.claims import Claim
from middleware.job.schema import Job, make_job
from ops.drop_folder_layout import NOTE_MAX_BYTES
from ops.files import Pulse, open_file
from ops.filetype import HEAD_BYTES, media_type_of_head
from ops.settings.station import StationSettings

_CHUNK_BYTES = 1_048_576
_KEY_PREFIX = "file:"


class FileChanging(OSError):
    """The file changed while it was read."""


class FileContent(NamedTuple):
    """Properties of a file that has been read.

    Attributes:
        sha256: Hash of the content, hexadecimal.
        size_bytes: Size of the content.
        media_type: Media type by the first bytes and the name.
        owner: Login name of the file's owner, or the numeric id.
    """

    sha256: str
    size_bytes: int
    media_type: str
    owner: str


def read_file(claim: Claim, pulse: Pulse) -> FileContent:
    """Read a claimed file once, in chunks.

    Args:
        claim: The file.
        pulse: Called after each chunk.

    Raises:
        FileChanging: The file changed meanwhile.
        OSError: It cannot be read, or is not a regular file.
    """
    fd = open_file(claim.path)
    try:
        before = os.fstat(fd)
        digest, size_bytes, head = hashlib.sha256(), 0, b""
        while chunk := os.read(fd, _CHUNK_BYTES):
            head = head if size_bytes else chunk[:HEAD_BYTES]
            digest.update(chunk)
            size_bytes += len(chunk)
            pulse()
        after = os.fstat(fd)
    finally:
        os.close(fd)
    was, now = ((info.st_size, info.st_mtime_ns) for info in (before, after))
    if was != now or size_bytes != after.st_size:
        raise FileChanging(f"{claim.name!r} is still being written")
    return FileContent(
        digest.hexdigest(), size_bytes, media_type_of_head(head, claim.name), _login_name(after.st_uid)
    )


@functools.cache
def _login_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_note(claim: Claim) -> str | None:
    """Return the text of a claim's note, None if it has none.

    Raises:
        OSError: The note cannot be read.
    """
    if claim.note is None:
        return None
    with os.fdopen(open_file(claim.note), "rb") as file:
        data = file.read(NOTE_MAX_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Old editors write Latin-1, which decodes any byte.
        return data.decode("latin-1")


def content_key(settings: StationSettings, claim: Claim, sha256: str, *, after: str = "") -> str | None:
    """Return the idempotency key of a file, so that the same content is processed once.

    Args:
        settings: ``same_content`` determines what counts as the same.
        claim: The file.
        sha256: Hash of its content.
        after: Id of the job that used the key before, if it has left no result.

    Returns:
        The key; None if the same content is always processed again.
    """
    if settings.same_content == "again":
        return None
    named = ""
    if settings.same_content == "by_name":
        named = ":" + hashlib.sha256(f"{claim.folder}/{claim.name}".encode()).hexdigest()[:16]
    return f"{_KEY_PREFIX}{sha256}{named}{f':after:{after}' if after else ''}"


def make_ingest_job(claim: Claim, content: FileContent, note: str | None, key: str | None) -> Job:
    """Build the job of a claimed file.

    Raises:
        InvalidJob: A value does not match the job type.
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
