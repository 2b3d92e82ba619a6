"""What an action is about to make, written down before it is made: for a rerun, and for ``3ox undo``.

One file a job, ``.3ox/undo/YYYY-MM-DD/JOB_ID.json``, and ``JOB_ID.begun`` until all of it is made. It holds
the decision too, so that an attempt after a crash does what the one before began, whatever a model would say
today.
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
    """Something that is there after the action.

    Attributes:
        kind: A folder, the file itself, or a text of ours.
        path: Relative to the workspace.
        made: By this job; False if it was there before.
        sha256: Of its content, for a file and a text.
        size_bytes: Of its content.
        text: Content of a text.
    """

    kind: Literal["folder", "file", "text"]
    path: str
    made: bool
    sha256: str = ""
    size_bytes: int = 0
    text: str = ""


class Journal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one job has made.

    Attributes:
        state: ``begun``, ``done`` when all of it is made, ``undoing`` and ``undone`` by ``3ox undo``.
        steps: In the order in which they are made.
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
    """Give a job's journal; None if there is none, or a power cut left it unreadable."""
    for suffix in (_BEGUN, _DONE):
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            data = _file_of(workspace, job_id, suffix).read_bytes()
            journal = msgspec.json.decode(data, type=Journal)
            return msgspec.structs.replace(journal, state="begun") if suffix == _BEGUN else journal
    return None


def begin(workspace: Workspace, journal: Journal) -> None:
    """Write down what is about to be made.

    Raises:
        OSError: It cannot be written.
    """
    _write(_file_of(workspace, journal.job_id, _BEGUN), journal)


def finish(workspace: Workspace, job_id: str) -> None:
    """Write down that all of it has been made: by the file's name, which costs no second file.

    Raises:
        OSError: It cannot be written.
    """
    # A rerun after the end has nothing to finish.
    with contextlib.suppress(FileNotFoundError):
        _file_of(workspace, job_id, _BEGUN).rename(_file_of(workspace, job_id, _DONE))


def forget_begun(workspace: Workspace, job_id: str) -> None:
    """Remove the record of what was begun and has been taken back."""
    _file_of(workspace, job_id, _BEGUN).unlink(missing_ok=True)


def amend(workspace: Workspace, journal: Journal) -> None:
    """Write down what has become of it since.

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
