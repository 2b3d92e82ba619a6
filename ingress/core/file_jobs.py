"""Build the job of a claimed file: kind, content hash, media type, note, earlier job of the same content.

The id of the claim is the id of the job, so the store accepts each claim once. Equal content is not identity:
two files of equal content are two jobs, of which the second names the first.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import pwd
import stat
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ingress.core.drop_folder import utf8_name
from ingress.core.file_claims import Claim
from middleware.job.reader import Reader
from middleware.job.schema import Job, make_job
from ops.drop_folder_layout import NOTE_MAX_BYTES, link_problem
from ops.errors import StoreError, StoreUnreachable
from ops.files import NotAFile, Pulse, open_file
from ops.filetype import HEAD_BYTES, media_type_of_head
from ops.settings.table import Settings

_CHUNK_BYTES = 1_048_576

Kind = Literal["file", "link", "folder"]


class FileChanging(OSError):
    """The file changed while it was read."""


class FileContent(NamedTuple):
    """Properties of a claimed entry that has been read.

    Attributes:
        sha256: Hash of the content, hexadecimal; of a link: of its target.
        size_bytes: Size of the content.
        media_type: Media type by the first bytes and the name.
        owner: Login name of the owner, or the numeric id.
        kind: A regular file, a symbolic link or an empty folder.
        link: Target of a link.
    """

    sha256: str
    size_bytes: int
    media_type: str
    owner: str
    kind: Kind = "file"
    link: str = ""


def read_claim(claim: Claim, pulse: Pulse) -> FileContent:
    """Read a claimed entry; a file once, in chunks.

    Args:
        claim: The entry.
        pulse: Called after each chunk.

    Raises:
        FileChanging: The file changed meanwhile.
        OSError: It cannot be read, or is a pipe, a socket or a device.
    """
    found = claim.path.lstat()
    if stat.S_ISLNK(found.st_mode):
        target = utf8_name(os.readlink(claim.path))  # noqa: PTH115 (the text as it is, without normalization)
        problem = link_problem(claim.folder, target)
        if problem:
            raise NotAFile(errno.ELOOP, problem, str(claim.path))
        data = target.encode()
        return FileContent(
            _sha256(data), len(data), "inode/symlink", login_name(found.st_uid), "link", target
        )
    if stat.S_ISDIR(found.st_mode):
        return FileContent(_sha256(b""), 0, "inode/directory", login_name(found.st_uid), "folder")
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(errno.EINVAL, "not a regular file", str(claim.path))
    return _read_file(claim, pulse)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_file(claim: Claim, pulse: Pulse) -> FileContent:
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
        digest.hexdigest(), size_bytes, media_type_of_head(head, claim.name), login_name(after.st_uid)
    )


@functools.cache
def login_name(uid: int) -> str:
    """Return the login name of a user id, or the id if it has none."""
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


class ReadClaim(NamedTuple):
    """A claim with what is in it.

    Attributes:
        claim: The claim.
        content: Its content.
        note: Text of its note.
    """

    claim: Claim
    content: FileContent
    note: str | None


class Earlier(NamedTuple):
    """An earlier job of the same content.

    Attributes:
        job_id: Its id; empty if there is none.
        reuse: Whether a decision of a model about it may be used, by ``[station] same_content``.
    """

    job_id: str = ""
    reuse: bool = False


class ContentIndex:
    """Finds the first job of the same content.

    Args:
        reader: The store.
        settings: ``same_content``, and how long a content is remembered (``idempotency_ttl_s``).
    """

    def __init__(self, reader: Reader, settings: Settings) -> None:
        self._reader = reader
        self._settings = settings

    def jobs(self, files: Sequence[ReadClaim]) -> list[Job]:
        """Return the jobs of claims, in order; each names an earlier job of the same content.

        Raises:
            InvalidJob: A value does not match the job type.
        """
        return [make_ingest_job(file, first) for file, first in zip(files, self.earlier(files), strict=True)]

    def earlier(self, files: Sequence[ReadClaim]) -> list[Earlier]:
        """Return the first job of the same content for each file, in order.

        Without the store there is none.
        """
        wanted = [file for file in files if file.content.kind == "file"]
        try:
            replies = self._reader.read([self._command(file) for file in wanted]) if wanted else []
        except (StoreError, StoreUnreachable):
            replies = [None] * len(wanted)
        first: dict[str, Earlier] = {}
        for file, reply in zip(wanted, replies, strict=True):
            job_id, _, mark = ("" if reply is None else reply.decode()).partition(" ")
            # A claim that is submitted again finds itself.
            if job_id and job_id != file.claim.job_id:
                first[file.claim.job_id] = Earlier(job_id, mark != "" and mark == self._mark(file))
        return [first.get(file.claim.job_id, Earlier()) for file in files]

    def _command(self, file: ReadClaim) -> tuple[str | int, ...]:
        key = self._reader.keys.content(file.content.sha256)
        value = f"{file.claim.job_id} {self._mark(file)}"
        return ("SET", key, value, "NX", "GET", "EX", self._settings.idempotency_ttl_s)

    def _mark(self, file: ReadClaim) -> str:
        """Return a short hash of what must be equal for a decision to be used; empty if it never is."""
        same = self._settings.station.same_content
        if same == "again":
            return ""
        path = f"{file.claim.folder}/{file.claim.name}" if same == "by_name" else ""
        return _sha256(f"{file.note}\0{path}".encode(errors="replace"))[:16]


def make_ingest_job(file: ReadClaim, earlier: Earlier) -> Job:
    """Return the job of a claim.

    Args:
        file: The claim and its content.
        earlier: An earlier job of the same content.

    Raises:
        InvalidJob: A value does not match the job type.
    """
    claim, content = file.claim, file.content
    return make_job(
        "ingest.file",
        {
            "path": str(claim.path),
            "name": claim.name,
            "sha256": content.sha256,
            "size_bytes": content.size_bytes,
            "note": file.note,
            "folder": claim.folder,
            "media_type": content.media_type,
            "kind": content.kind,
            "link": content.link,
            "same_as": earlier.job_id,
            "reuse": earlier.reuse,
            "left": list(claim.left),
        },
        job_id=claim.job_id,
        source="station",
        actor=content.owner,
        trust="untrusted",
    )
