"""Takes back what an ``ingest.file`` has done, as long as nothing has changed since."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.ingest.journal import Journal, Step, amend, forget_begun, read_journal
from ops.drop_folder_layout import undone_folder
from ops.errors import BridgeError, JobNotFound, WrongState
from ops.files import has_content, link_or_copy
from ops.lockfile import take_lock
from ops.workspace import Workspace

#: Another undo may be copying a large file back.
_LOCK_WITHIN_S = 60.0


class UndoResult(Struct, frozen=True, kw_only=True):
    """What an undo has done.

    Attributes:
        job_id: Of the job whose action it was.
        action: Which.
        file: Where the file lies now; None if it stayed, since it had been there before.
        removed: What was taken away, relative to the workspace.
        kept: Folders that stayed, since there is something else in them.
    """

    job_id: str
    action: str
    file: str | None
    removed: list[str]
    kept: list[str]


def undo(workspace: Workspace, job_id: str, *, ended: bool = False) -> UndoResult:
    """Undo a job's action: all of it, or, if anything has changed since, nothing.

    The file goes to ``IN1N.3OX/undone/JOB_ID/``. An undo that was interrupted is completed by the next one.

    Args:
        workspace: Where it was done.
        job_id: The whole id.
        ended: The job is known to have ended, so what it has not finished nobody will finish.

    Raises:
        JobNotFound: Nothing of this job is on record here.
        WrongState: It is still running or was undone before, or something has changed since.
        BridgeError: The system refused.
    """
    root = workspace.undo_dir
    if not root.is_dir():
        raise _unknown(job_id)
    try:
        fd = take_lock(root / "lock", within_s=_LOCK_WITHIN_S)
    except TimeoutError as error:
        raise WrongState(
            "another file is being taken back, and it takes too long.", remedy="Undo again later."
        ) from error
    try:
        journal = read_journal(workspace, job_id)
        if journal is None:
            raise _unknown(job_id)
        return _undo(workspace, journal, ended=ended)
    except OSError as error:
        raise BridgeError(
            f"{error.filename!r} cannot be taken back: {error.strerror}.",
            remedy="Correct that and undo again.",
        ) from error
    finally:
        os.close(fd)


def _unknown(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is nothing to undo for the job {job_id!r}.",
        remedy="Only ingest.file jobs are undone, on the machine that ran them, while they are on record.",
    )


def _undo(workspace: Workspace, journal: Journal, *, ended: bool) -> UndoResult:
    if journal.state == "undone" or (journal.state == "begun" and not ended):
        what = "has not ended yet" if journal.state == "begun" else "was undone before"
        raise WrongState(f"{journal.job_id} {what}.", remedy="'3ox jobs ID' shows it.")
    made = [step for step in journal.steps if step.made]
    if journal.state == "begun":
        made = [step for step in made if os.path.lexists(workspace.home / step.path)]
    back = {step.path: _way_back(workspace, journal.job_id, step) for step in made if step.kind == "file"}
    for step in made:
        _require_unchanged(workspace, journal, step, back.get(step.path))
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
        elif step.kind == "file":
            _bring_back(place, back[step.path])
        else:
            place.unlink(missing_ok=True)
        removed.append(step.path)
    amend(workspace, msgspec.structs.replace(journal, state="undone"))
    return UndoResult(
        job_id=journal.job_id,
        action=journal.decision.action,
        file=next((str(path) for path in back.values()), None),
        removed=removed,
        kept=kept,
    )


def _way_back(workspace: Workspace, job_id: str, step: Step) -> Path:
    return undone_folder(workspace, job_id) / step.path.rpartition("/")[2]


def _require_unchanged(workspace: Workspace, journal: Journal, step: Step, back: Path | None) -> None:
    if step.kind == "folder":
        return
    place = workspace.home / step.path
    if has_content(place, step.sha256, step.size_bytes, lambda: None):
        return
    if journal.state == "undoing" and (
        back is None or has_content(back, step.sha256, step.size_bytes, lambda: None)
    ):
        return
    gone = not os.path.lexists(place)
    raise WrongState(
        f"{step.path!r} {'is no longer there' if gone else 'has been changed since'}; nothing was undone.",
        remedy="Put it back as it was, or tidy up by hand.",
    )


def _bring_back(place: Path, back: Path) -> None:
    back.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        link_or_copy(place, back, ".undo.part", lambda: None)
    place.unlink(missing_ok=True)
