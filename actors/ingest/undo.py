"""Undoes the action of an ``ingest.file`` job, provided that nothing has changed since."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.ingest.journal import Journal, Step, amend, forget_begun, read_journal
from ops.drop_folder_layout import undone_folder
from ops.errors import BridgeError, JobNotFound, WrongState
from ops.files import has_content, is_link_to, link_or_copy
from ops.lockfile import take_lock
from ops.workspace import Workspace

#: Timeout for another undo, which may be copying a large file.
_LOCK_WITHIN_S = 60.0


class UndoResult(Struct, frozen=True, kw_only=True):
    """Result of an undo.

    Attributes:
        job_id: Id of the job.
        action: The action that was undone.
        file: Where the file is now; None if it stayed because it existed before the action.
        removed: What was removed, relative to the workspace.
        kept: Folders that were kept because they contain something else.
    """

    job_id: str
    action: str
    file: str | None
    removed: list[str]
    kept: list[str]


def undo(workspace: Workspace, job_id: str, *, ended: bool = False) -> UndoResult:
    """Undo a job's action completely, or not at all if anything has changed since.

    The file is moved to ``IN1N.3OX/undone/JOB_ID/``. An interrupted undo is completed by the next one.

    Args:
        workspace: The workspace.
        job_id: Full job id.
        ended: Whether the job is known to have ended; its unfinished action is undone then too.

    Raises:
        JobNotFound: This job has no journal here.
        WrongState: The job is running, the action was undone before, or something has changed since.
        BridgeError: A file operation failed.
    """
    root = workspace.undo_dir
    if not root.is_dir():
        raise _unknown(job_id)
    try:
        fd = take_lock(root / "lock", within_s=_LOCK_WITHIN_S)
    except TimeoutError as error:
        raise WrongState(
            f"Another undo has been running for more than {_LOCK_WITHIN_S:g} s.", remedy="Undo again later."
        ) from error
    try:
        journal = read_journal(workspace, job_id)
        if journal is None:
            raise _unknown(job_id)
        return _undo(workspace, journal, ended=ended)
    except OSError as error:
        raise BridgeError(
            f"{error.filename!r} cannot be undone: {error.strerror}.",
            remedy="Correct the cause and undo again.",
        ) from error
    finally:
        os.close(fd)


def _unknown(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"There is nothing to undo for the job {job_id!r}.",
        remedy="Only ingest.file jobs can be undone, on the host that ran them, while their journal exists.",
    )


def _undo(workspace: Workspace, journal: Journal, *, ended: bool) -> UndoResult:
    if journal.state == "undone" or (journal.state == "begun" and not ended):
        what = "has not finished yet" if journal.state == "begun" else "was undone before"
        raise WrongState(
            f"The job {journal.job_id} {what}.", remedy=f"'3ox jobs {journal.job_id}' shows its state."
        )
    made = [step for step in journal.steps if step.made]
    if journal.state == "begun":
        made = [step for step in made if os.path.lexists(workspace.home / step.path)]
    undone = {
        step.path: _undone_path(workspace, journal.job_id, step)
        for step in made
        if step.kind in ("file", "link")
    }
    for step in made:
        _require_unchanged(workspace, journal, step, undone.get(step.path))
    journal = msgspec.structs.replace(journal, state="undoing", steps=made)
    amend(workspace, journal)
    forget_begun(workspace, journal.job_id)
    removed, kept = [], []
    for step in reversed(made):
        place = workspace.home / step.path
        if step.kind == "folder":
            try:
                place.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                kept.append(step.path)
                continue
        elif step.path in undone:
            _move_back(step, place, undone[step.path])
        else:
            place.unlink(missing_ok=True)
        removed.append(step.path)
    amend(workspace, msgspec.structs.replace(journal, state="undone"))
    return UndoResult(
        job_id=journal.job_id,
        action=journal.decision.action,
        file=next((str(path) for path in undone.values()), None),
        removed=removed,
        kept=kept,
    )


def _undone_path(workspace: Workspace, job_id: str, step: Step) -> Path:
    return undone_folder(workspace, job_id) / step.path.rpartition("/")[2]


def _require_unchanged(workspace: Workspace, journal: Journal, step: Step, undone: Path | None) -> None:
    if step.kind == "folder":
        return
    place = workspace.home / step.path
    if _exists(place, step):
        return
    if journal.state == "undoing" and (undone is None or _exists(undone, step)):
        return
    missing = not os.path.lexists(place)
    raise WrongState(
        f"{step.path!r} {'is missing' if missing else 'has changed since'}; nothing was undone.",
        remedy="Restore it, or undo the action by hand.",
    )


def _exists(place: Path, step: Step) -> bool:
    if step.kind == "link":
        return is_link_to(place, step.text)
    return has_content(place, step.sha256, step.size_bytes, lambda: None)


def _move_back(step: Step, place: Path, undone: Path) -> None:
    undone.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        if step.kind == "link":
            os.symlink(step.text, undone)  # noqa: PTH211 (the text as it is, without normalization)
        else:
            link_or_copy(place, undone, ".undo.part", lambda: None)
    place.unlink(missing_ok=True)
