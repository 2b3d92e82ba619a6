"""Journal of an action, written before it is carried out: for retries after a crash, and for ``3ox undo``.

One file per job, ``.3ox/undo/YYYY-MM-DD/JOB_ID.json``, named ``JOB_ID.begun`` until all steps are done. It
also holds the decision, so that a retry after a crash completes the same action, whatever a model would
decide now.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from actors.ingest.decision import Decision, day_of
from ops.files import replace_file
from ops.workspace import Workspace

_BEGUN = ".begun"
_DONE = ".json"


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item that exists after the action.

    Attributes:
        kind: A folder, the file itself, a symbolic link, or a text written by the bridge.
        path: Its path, relative to the workspace.
        made: Whether this job creates it; False if it existed before.
        sha256: SHA-256 of the content of a file or text.
        size_bytes: Size of that content.
        text: Content of a text, target of a link.
    """

    kind: Literal["folder", "file", "link", "text"]
    path: str
    made: bool
    sha256: str = ""
    size_bytes: int = 0
    text: str = ""


class Journal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The journal of one job.

    Attributes:
        state: ``begun``, ``done`` after the last step, ``undoing`` and ``undone`` by ``3ox undo``.
        steps: The steps in the order in which they are carried out.
    """

    job_id: str
    name: str
    decision: Decision
    steps: list[Step]
    state: Literal["begun", "done", "undoing", "undone"] = "done"
    version: int = 1


def _file_of(workspace: Workspace, job_id: str, suffix: str) -> Path:
    return workspace.undo_dir / f"{day_of(job_id):%Y-%m-%d}" / f"{job_id}{suffix}"


def read_journal(workspace: Workspace, job_id: str) -> Journal | None:
    """Return a job's journal; None if it is missing, or unreadable after a power cut."""
    for suffix in (_BEGUN, _DONE):
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            data = _file_of(workspace, job_id, suffix).read_bytes()
            journal = msgspec.json.decode(data, type=Journal)
            return msgspec.structs.replace(journal, state="begun") if suffix == _BEGUN else journal
    return None


def begin(workspace: Workspace, journal: Journal) -> None:
    """Write the journal before the action.

    Raises:
        OSError: It cannot be written.
    """
    _write(_file_of(workspace, journal.job_id, _BEGUN), journal)


def finish(workspace: Workspace, job_id: str) -> None:
    """Mark the journal as done, by renaming its file.

    Raises:
        OSError: It cannot be renamed.
    """
    # A retry after the last step finds it renamed already.
    with contextlib.suppress(FileNotFoundError):
        _file_of(workspace, job_id, _BEGUN).rename(_file_of(workspace, job_id, _DONE))


def forget_begun(workspace: Workspace, job_id: str) -> None:
    """Remove the journal of an unfinished action that was undone."""
    _file_of(workspace, job_id, _BEGUN).unlink(missing_ok=True)


def amend(workspace: Workspace, journal: Journal) -> None:
    """Write a changed journal of a finished action.

    Raises:
        OSError: It cannot be written.
    """
    _write(_file_of(workspace, journal.job_id, _DONE), journal)


def _write(file: Path, journal: Journal) -> None:
    data = msgspec.json.encode(journal)
    try:
        replace_file(file, data)
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, data)
