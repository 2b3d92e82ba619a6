"""Checks of paths and names that come from outside: they must stay inside the workspace."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from ops.errors import JobRefused
from ops.workspace import Workspace

#: Limit of file systems on one name, in bytes.
_NAME_MAX_BYTES = 255


class OutsideWorkspace(JobRefused):
    """The location is outside the workspace."""


def parts_of(folder: str) -> list[str]:
    """Split a relative folder into its parts; any name that a file system allows is one.

    Raises:
        OutsideWorkspace: It is absolute, contains ``..``, or is not valid.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    hostile = folder.startswith("/") or ".." in parts or "\0" in folder
    if hostile or any(len(part.encode()) > _NAME_MAX_BYTES for part in parts):
        _refuse(folder)
    return parts


def require_location(location: str) -> str:
    """Return a location that a rule or a model has chosen, after checking its form.

    Raises:
        OutsideWorkspace: It uses a backslash or a tilde, which mean something else on other systems.
    """
    if "\\" in location or location.startswith("~"):
        _refuse(location)
    return location


def _refuse(folder: str) -> None:
    raise OutsideWorkspace(
        f"The location {folder[:200]!r} is not a folder inside the workspace.",
        remedy="Use a folder relative to the workspace, without '..'.",
    )


def require_name(name: str) -> None:
    """Return if a file name is a single name, not a path.

    Raises:
        OutsideWorkspace: It is a path.
    """
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        _refuse(name)


def inside(workspace: Workspace, folder: str) -> str:
    """Return a location in normalized form, after checking that it is inside the workspace.

    Args:
        workspace: The workspace.
        folder: The location, relative to the workspace; it may not exist.

    Raises:
        OutsideWorkspace: It leads out of the workspace, through a link too, or into the bridge's own state.
    """
    parts = parts_of(folder)
    if not parts or parts[0] in {workspace.state_dir.name, workspace.inbox.name}:
        _refuse(folder)
    home = Path(os.path.realpath(workspace.home))
    real = Path(os.path.realpath(home.joinpath(*parts)))
    # WORKDESK may be a link made by the owner of the workspace; no other link may lead out.
    desk = Path(os.path.realpath(workspace.workdesk))
    if parts[0] == workspace.workdesk.name and real.is_relative_to(desk):
        return posixpath.join(*parts)
    if not real.is_relative_to(home) or real == home:
        _refuse(folder)
    if real.relative_to(home).parts[0] in {workspace.state_dir.name, workspace.inbox.name}:
        _refuse(folder)
    return posixpath.join(*parts)


def plain_name(text: str, default: str) -> str:
    """Return a folder name for a text: letters, digits, space, ``._-``; not hidden, at most 80 bytes.

    Args:
        text: Text of a rule, a model or a file name.
        default: Returned if nothing of the text remains.
    """
    kept = "".join(letter if letter.isalnum() or letter in " ._-" else "-" for letter in text)
    name = kept.strip(" .-_").encode()[:80].decode(errors="ignore").rstrip(" .")
    return name if name else default
