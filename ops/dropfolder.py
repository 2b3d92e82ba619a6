"""The rooms inside the drop folder, and what a name in it may be.

    IN1N.3OX/.claimed/JOB_ID/[FOLDER/]NAME   a file between its claim and the commit of its job's result
    IN1N.3OX/failed/JOB_ID/[FOLDER/]NAME     one whose job did not succeed; NAME.reason.txt says why
    IN1N.3OX/undone/JOB_ID/NAME              one that `3ox undo` has brought back

The claim lies in the drop folder itself, so that taking a file is one rename inside one file system.
"""

from __future__ import annotations

from pathlib import Path

from ops.workspace import Workspace

CLAIMED = ".claimed"
FAILED = "failed"
UNDONE = "undone"
#: In the drop folder, folders of these names are not looked into.
ROOMS = frozenset({CLAIMED, FAILED, UNDONE})
#: What the bridge's own doors write beside the dropped files, until it is renamed: left alone whatever the
#: setting ``ignore`` says.
OWN_NAMES = (".3ox-*", ".*.part")

NOTE_SUFFIX = ".note.txt"
REASON_SUFFIX = ".reason.txt"
#: A longer companion is no note but a file of its own: a job's payload has to stay small.
NOTE_MAX_BYTES = 65_536
#: Bound of nearly all file systems on one name.
NAME_MAX_BYTES = 255


def claim_folder(workspace: Workspace, job_id: str) -> Path:
    """Give where the file of a job lies until the job has ended."""
    return workspace.inbox / CLAIMED / job_id


def failed_folder(workspace: Workspace, job_id: str) -> Path:
    """Give where the file of a job lies that did not succeed."""
    return workspace.inbox / FAILED / job_id


def undone_folder(workspace: Workspace, job_id: str) -> Path:
    """Give where the file of a job lies whose action was undone."""
    return workspace.inbox / UNDONE / job_id


def shortened(name: str, tail: str = "", *, max_bytes: int = NAME_MAX_BYTES) -> str:
    """Put ``tail`` before a name's suffix, and cut the stem so that the whole is a name that fits.

    Args:
        name: A file's name.
        tail: What comes between stem and suffix.
        max_bytes: How long it may be.
    """
    stem, dot, suffix = name.rpartition(".")
    if stem == "":
        stem, dot, suffix = name, "", ""
    end = f"{tail}{dot}{suffix}"
    room_bytes = max_bytes - len(end.encode())
    if room_bytes <= 0:
        return shortened(name.replace(".", "_"), tail, max_bytes=max_bytes)
    return stem.encode()[:room_bytes].decode(errors="ignore") + end
