"""Puts files where the station takes them: into the drop folder, or claimed already for a job of one's own.

``drop`` is what ``3ox drop`` does: a person's file becomes a job of the station. ``stage`` is for another
door that receives a file (an upload, a document in a chat): the file lies claimed under a job's id, and the
door dispatches the job itself, with its own source and actor. If it ends before it has, the station takes
the claim up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ingress.station.claims import utf8_name
from ingress.station.inbox import Inbox
from ingress.station.placing import lay
from middleware.job.ids import new_job_id
from middleware.job.types import IngestFilePayload
from ops.dropfolder import NAME_MAX_BYTES, NOTE_MAX_BYTES, NOTE_SUFFIX, claim_folder, shortened
from ops.errors import BridgeError, UsageProblem
from ops.files import NotAFile, open_file
from ops.filetype import HEAD_BYTES, media_type_of_head
from ops.settings.load import LoadedSettings
from ops.workspace import Workspace


class Staged(NamedTuple):
    """A file that is ready to be ingested.

    Attributes:
        job_id: The id that its job has to have.
        payload: Of the job ``ingest.file``.
    """

    job_id: str
    payload: IngestFilePayload


def file_name(text: str) -> str:
    """Make a file name of what a stranger calls a file: its last part, without what no name may hold.

    Args:
        text: From an upload, a chat, a command line.
    """
    name = utf8_name(text).replace("\\", "/").rstrip("/").rpartition("/")[2].replace("\0", "")
    name = name if name not in ("", ".", "..") else "file"
    return shortened(name, max_bytes=NAME_MAX_BYTES - len(NOTE_SUFFIX))


def check_note(note: str | None) -> None:
    """See to it that a note is one.

    Raises:
        UsageProblem: It is too long.
    """
    if note is not None and len(note.encode("utf-8", "replace")) > NOTE_MAX_BYTES:
        raise UsageProblem(
            f"the note is longer than {NOTE_MAX_BYTES} bytes.", remedy="Drop it as a file of its own."
        )


def drop(loaded: LoadedSettings, source: Path, *, note: str | None = None) -> Path:
    """Copy a file into the drop folder, whole and at once; a name that is taken gets a number.

    One that the station would leave alone gets another name: who drops a file wants it taken.

    Args:
        loaded: Say where the drop folder is, and what is left alone in it.
        source: The file.
        note: Becomes its companion ``NAME.note.txt``.

    Returns:
        Where it lies now.

    Raises:
        UsageProblem: It is no regular file, cannot be read, or the note is too long.
        BridgeError: It cannot be copied.
    """
    check_note(note)
    try:
        source_fd = open_file(Path(os.path.realpath(source)))
    except NotAFile as error:
        raise UsageProblem(f"{str(source)!r} is no file.", remedy="Name files, not folders.") from error
    except OSError as error:
        raise UsageProblem(
            f"{str(source)!r} cannot be read: {error.strerror}.", remedy="Check its name and mode."
        ) from error
    folder = loaded.workspace.inbox
    name = file_name(Inbox(folder, loaded.settings.station.ignore).takeable(file_name(source.name), "drop"))
    # Of this pattern the station takes nothing.
    draft = folder / f".3ox-drop-{new_job_id()}.part"
    try:
        with os.fdopen(source_fd, "rb") as file, draft.open("xb") as copy:
            shutil.copyfileobj(file, copy, 1_048_576)
        return lay(draft, lambda number: name if number == 1 else shortened(name, f"-{number}"), note)
    except OSError as error:
        raise BridgeError(
            f"{str(source)!r} cannot be dropped: {error.strerror}.",
            remedy="Check the disk and the mode of IN1N.3OX.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


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
