"""Claims: files that have been taken over and wait in a folder named by the id of their job.

The station claims what is put into the drop folder. The other interfaces claim a file that they have received
in whole, so that its job id is known at once; if its job cannot be submitted now, the station does it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from ingress.core.drop_folder import note_name
from middleware.job.ids import new_job_id
from ops.drop_folder_layout import claim_folder
from ops.files import sync_folder, write_new
from ops.workspace import Workspace

#: Suffix of the folder of a claim that is being made.
STAGING_SUFFIX = ".new"


class Claim(NamedTuple):
    """A claimed file, link or empty folder.

    Attributes:
        job_id: Id of its job.
        path: Its path below ``.claimed``.
        folder: The subfolder of the drop folder that it was in.
        name: Its name, in UTF-8.
        note: Path of its companion, or None.
        left: Entries of the same folder that stay in the drop folder, with the reason.
    """

    job_id: str
    path: Path
    folder: str
    name: str
    note: Path | None = None
    left: tuple[str, ...] = ()


def claim_received(
    workspace: Workspace, draft: Path, name: str, note: str | None, *, job_id: str | None = None
) -> Claim:
    """Claim a received file: its note first, then the file by one rename; both are on disk afterwards.

    Args:
        workspace: The workspace.
        draft: The complete file in the drop folder, synced to disk.
        name: Its name.
        note: Text about it; None or empty for no note.
        job_id: Id of its job, if an interrupted attempt may have claimed it before; a new one by default.

    Raises:
        OSError: It cannot be claimed, and is not stored.
    """
    job_id = new_job_id() if job_id is None else job_id
    home = claim_folder(workspace, job_id)
    target = home / name
    companion = home / note_name(name) if note else None
    if target.is_file():
        # Of an interrupted attempt, and a worker may be reading it.
        draft.unlink()
        return Claim(job_id, target, "", name, companion)
    # Complete before it has its name: the station reads a claim as it finds it.
    staging = home.with_name(job_id + STAGING_SUFFIX)
    remove_claim(staging)
    staging.mkdir(parents=True)
    try:
        if companion is not None and note:
            write_new(staging / companion.name, note.encode(errors="replace"), ".note.part", mode=0o600)
        draft.rename(staging / name)
        sync_folder(staging)
        staging.rename(home)
    except OSError:
        remove_claim(staging)
        raise
    sync_folder(home.parent)
    return Claim(job_id, target, "", name, companion)


def remove_claim(folder: Path) -> None:
    """Remove a folder of ``.claimed`` or ``failed`` with its files; nothing happens if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        # Usually one or two files and no folder, for which this is faster than rmtree.
        for name in os.listdir(folder):  # noqa: PTH208
            try:
                (folder / name).unlink()
            except (IsADirectoryError, PermissionError):
                shutil.rmtree(folder)
                return
        folder.rmdir()
