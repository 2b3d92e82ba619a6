"""Submit a received file: claim it, submit its job, and answer what became of it.

Used by ``3ox drop``, uploads over REST and documents from chats.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from ingress.core.drop_folder import check_note, utf8_name, visible_name
from ingress.core.file_claims import Claim, claim_received, remove_claim
from ingress.core.file_jobs import ContentIndex, Earlier, FileContent, ReadClaim, login_name, make_ingest_job
from middleware.job.ids import new_job_id
from middleware.job.records import Receipt
from middleware.job.schema import Job
from ops.drop_folder_layout import claim_folder
from ops.errors import (
    BridgeError,
    InvalidJob,
    JobFailed,
    PolicyDenied,
    QueueFull,
    SpoolFull,
    StoreError,
    StoreUnreachable,
    UsageProblem,
)
from ops.files import NotAFile, open_file, require_free_space, write_all
from ops.filetype import media_type_of
from ops.settings.load import LoadedSettings

#: Status of a file whose job the station will submit.
CLAIMED = "claimed"
#: Status of a file for which no job is accepted.
REFUSED = "refused"
_CHUNK_BYTES = 1_048_576


class FileAnswer(Struct, frozen=True, kw_only=True):
    """What became of a received file.

    Attributes:
        name: Its name.
        job_id: Id of its job.
        status: State of the job; ``spooled`` while the store is unavailable; ``claimed``: the station submits
            it later, for the reason given; ``refused``: it was not accepted and is not stored.
        size_bytes: Size of the content.
        sha256: Hash of the content.
        same_content: Id of an earlier job of the same content; null if there is none.
        reason: Why it is claimed or refused; empty otherwise.
        path: Where the file is until its job has finished.
    """

    name: str
    job_id: str
    status: str
    size_bytes: int
    sha256: str
    same_content: str | None = None
    reason: str = ""
    path: str = ""


class FileSubmission:
    """Submits received files.

    Args:
        loaded: Settings and workspace.
        index: Finds earlier jobs of the same content.
        accept: Submits a job.
    """

    def __init__(self, loaded: LoadedSettings, index: ContentIndex, accept: Callable[[Job], Receipt]) -> None:
        self._loaded = loaded
        self._index = index
        self._accept = accept

    def draft(self, interface: str) -> Path:
        """Return a temporary path in the drop folder, which the station ignores."""
        return self._loaded.workspace.inbox / f".{interface}-{new_job_id()}.part"

    def submit(
        self,
        draft: Path,
        name: str,
        note: str | None,
        *,
        sha256: str,
        size_bytes: int,
        job_id: str | None = None,
    ) -> FileAnswer:
        """Claim a received file and submit its job.

        Args:
            draft: The complete file in the drop folder, synced to disk.
            name: Its name.
            note: Text about it; None or empty for none.
            sha256: Hash of its content.
            size_bytes: Size of its content.
            job_id: Id of its job, if an interrupted attempt may have submitted it before; a new one by
                default.

        Raises:
            OSError: It cannot be claimed; the draft stays.
        """
        media_type = media_type_of(draft, name)
        claim = claim_received(self._loaded.workspace, draft, name, note, job_id=job_id)
        content = FileContent(sha256, size_bytes, media_type, login_name(os.geteuid()))
        earlier, status, reason = Earlier(), CLAIMED, ""
        try:
            read = ReadClaim(claim, content, note or None)
            (earlier,) = self._index.earlier([read])
            status = self._accept(make_ingest_job(read, earlier)).status
        except (InvalidJob, PolicyDenied) as error:
            remove_claim(claim_folder(self._loaded.workspace, claim.job_id))
            status, reason = REFUSED, str(error)
        except (QueueFull, SpoolFull, StoreError, StoreUnreachable) as error:
            reason = str(error)
        return _answer(claim, content, status, earlier.job_id, reason)

    def drop(self, source: Path, *, note: str | None = None) -> FileAnswer:
        """Copy a file of this host and submit the copy.

        Args:
            source: The file to copy; a link is followed.
            note: Text about it.

        Raises:
            UsageProblem: ``source`` is not a regular file, cannot be read or is being written, or the note is
                too long.
            BridgeError: The copy failed.
        """
        check_note(note)
        source_fd = _open_source(source)
        name = utf8_name(source.name)
        if not self._loaded.settings.station.dot_files:
            name = visible_name(name, "drop")
        draft = self.draft("3ox-drop")
        try:
            with os.fdopen(source_fd, "rb", buffering=0) as file, draft.open("xb", buffering=0) as copy:
                before = os.fstat(file.fileno())
                require_free_space(
                    draft.parent, before.st_size + self._loaded.settings.station.free_min_bytes
                )
                digest = hashlib.sha256()
                while piece := file.read(_CHUNK_BYTES):
                    digest.update(piece)
                    write_all(copy.fileno(), piece)
                after = os.fstat(file.fileno())
                _require_unchanged(source, before, after)
                os.fsync(copy.fileno())
            return self.submit(draft, name, note, sha256=digest.hexdigest(), size_bytes=after.st_size)
        except JobFailed as error:
            raise BridgeError(error.message, remedy="Nothing was dropped; drop it again then.") from error
        except OSError as error:
            raise BridgeError(
                f"{str(source)!r} cannot be dropped: {error.strerror}.",
                remedy="Check the disk and the mode of IN1N.3OX.",
            ) from error
        finally:
            draft.unlink(missing_ok=True)


def _open_source(source: Path) -> int:
    try:
        return open_file(Path(os.path.realpath(source)))
    except NotAFile as error:
        raise UsageProblem(
            f"{str(source)!r} is not a file.",
            remedy="Name files; copy a folder into IN1N.3OX, it keeps its structure.",
        ) from error
    except OSError as error:
        raise UsageProblem(
            f"{str(source)!r} cannot be read: {error.strerror}.", remedy="Check its name and mode."
        ) from error


def _require_unchanged(source: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UsageProblem(
            f"{str(source)!r} was written while it was copied; nothing was dropped.",
            remedy="Drop it when it is complete.",
        )


def _answer(claim: Claim, content: FileContent, status: str, same_as: str, reason: str) -> FileAnswer:
    return FileAnswer(
        name=claim.name,
        job_id=claim.job_id,
        status=status,
        size_bytes=content.size_bytes,
        sha256=content.sha256,
        same_content=same_as or None,
        reason=reason,
        path="" if status == REFUSED else str(claim.path),
    )
