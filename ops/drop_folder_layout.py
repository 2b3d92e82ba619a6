"""Folders and file names in the drop folder.

    IN1N.3OX/.claimed/JOB_ID/[FOLDER/]NAME   a claimed file, until its job's result is committed
    IN1N.3OX/failed/JOB_ID/[FOLDER/]NAME     a file whose job failed; NAME.reason.txt holds the reason
    IN1N.3OX/undone/JOB_ID/NAME              a file that `3ox undo` has moved back

Claimed files stay in the drop folder, so that claiming one is a rename within one file system.
"""

from __future__ import annotations

from pathlib import Path

from ops.workspace import Workspace

CLAIMED = ".claimed"
FAILED = "failed"
UNDONE = "undone"
#: Folders of the drop folder that are not scanned.
RESERVED_FOLDERS = frozenset({CLAIMED, FAILED, UNDONE})
#: Drafts that the bridge's own interfaces write into the drop folder; ignored whatever ``station.ignore``
#: says.
OWN_NAMES = (".3ox-*", ".*.part")

NOTE_SUFFIX = ".note.txt"
REASON_SUFFIX = ".reason.txt"
#: A larger NAME.note.txt is a file of its own, not a note: a job's payload must stay small.
NOTE_MAX_BYTES = 65_536
#: Limit of nearly all file systems on one name.
NAME_MAX_BYTES = 255


def claim_folder(workspace: Workspace, job_id: str) -> Path:
    """Return the folder of a job's file until the job has finished."""
    return workspace.inbox / CLAIMED / job_id


def failed_folder(workspace: Workspace, job_id: str) -> Path:
    """Return the folder of the file of a failed job."""
    return workspace.inbox / FAILED / job_id


def undone_folder(workspace: Workspace, job_id: str) -> Path:
    """Return the folder of the file of a job whose action was undone."""
    return workspace.inbox / UNDONE / job_id


def link_problem(folder: str, target: str) -> str:
    """Return why a symbolic link cannot be kept, some words; empty if it stays inside what was dropped.

    A link in a dropped folder must stay inside the topmost one, a link at the top inside the drop folder. A
    target may not go up after it went down: through another link, that would lead elsewhere.

    Args:
        folder: Folder of the link, relative to the drop folder; empty at the top.
        target: Text of the link.
    """
    if target.startswith("/"):
        return "its target is an absolute path"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[ups:]:
        return "its target goes up after it goes down"
    depth = len([part for part in folder.split("/") if part])
    if ups > max(0, depth - 1) or (depth == 0 and not parts):
        return "its target is outside what was dropped"
    if depth == 0 and parts[0] in RESERVED_FOLDERS:
        return "its target is a folder of the station's own"
    return ""


def shortened(name: str, tail: str = "", *, max_bytes: int = NAME_MAX_BYTES) -> str:
    """Return a file name with ``tail`` inserted before its suffix, the stem cut to fit the limit.

    Args:
        name: File name.
        tail: Text between stem and suffix.
        max_bytes: Maximum length of the result.
    """
    stem, dot, suffix = name.rpartition(".")
    if stem == "":
        stem, dot, suffix = name, "", ""
    end = f"{tail}{dot}{suffix}"
    room_bytes = max_bytes - len(end.encode())
    if room_bytes <= 0:
        return shortened(name.replace(".", "_"), tail, max_bytes=max_bytes)
    return stem.encode()[:room_bytes].decode(errors="ignore") + end
