"""Write a received file into a claim folder, for an adapter that submits the job itself.

The file is claimed under a job id from the start, so the adapter can submit the job with its own source and
actor. If the adapter ends before it submits the job, the station adopts the claim.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from typing import NamedTuple

from ingress.core.drop_folder import check_note, file_name
from middleware.job.ids import new_job_id
from middleware.job.types import IngestFilePayload
from ops.dropfolder import NOTE_SUFFIX, claim_folder, shortened
from ops.errors import BridgeError
from ops.filetype import HEAD_BYTES, media_type_of_head
from ops.workspace import Workspace


class Staged(NamedTuple):
    """A file that is ready to be ingested.

    Attributes:
        job_id: The id that its job has to have.
        payload: Of the job ``ingest.file``.
    """

    job_id: str
    payload: IngestFilePayload


def stage(workspace: Workspace, name: str, pieces: Iterable[bytes], *, note: str | None = None) -> Staged:
    """Write a file that comes in through another door, claimed already.

    Dispatch the job right after it: ``make_job("ingest.file", staged.payload, job_id=staged.job_id, ...)``.
    When it has ended, the station removes the file, or lays it into ``failed/``.

    Args:
        workspace: Whose drop folder.
        name: As the stranger calls it; anything.
        pieces: Its content.
        note: What came with it.

    Raises:
        UsageProblem: The note is too long.
        BridgeError: It cannot be written; nothing is left of it.
    """
    check_note(note)
    job_id, plain = new_job_id(), file_name(name)
    home = claim_folder(workspace, job_id)
    target = home / plain
    digest, size_bytes, head = hashlib.sha256(), 0, b""
    try:
        home.mkdir(parents=True)
        with target.open("xb") as file:
            for piece in pieces:
                head = head if len(head) >= HEAD_BYTES else (head + piece)[:HEAD_BYTES]
                digest.update(piece)
                size_bytes += len(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if note is not None:
            (home / shortened(plain + NOTE_SUFFIX)).write_text(note, encoding="utf-8", errors="replace")
    except BaseException as error:
        # Whatever stops it, the sender's broken line included: half a file is none.
        shutil.rmtree(home, ignore_errors=True)
        if isinstance(error, OSError):
            raise BridgeError(
                f"{plain!r} cannot be taken: {error.strerror}.", remedy="Check the disk of the workspace."
            ) from error
        raise
    payload = IngestFilePayload(
        path=str(target),
        name=plain,
        sha256=digest.hexdigest(),
        size_bytes=size_bytes,
        note=note,
        media_type=media_type_of_head(head, plain),
    )
    return Staged(job_id, payload)
