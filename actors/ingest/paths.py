"""Where a file may go: into the workspace, and nowhere else."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from ops.errors import JobRefused
from ops.workspace import Workspace

_PARTS_MAX = 16


class OutsideWorkspace(JobRefused):
    """A location lies outside the workspace; nothing is put there."""


def parts_of(folder: str) -> list[str]:
    """Split a relative folder into its parts.

    Raises:
        OutsideWorkspace: It is absolute, leads upwards, or is none.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    hostile = folder.startswith(("/", "~")) or ".." in parts or "\0" in folder or "\\" in folder
    if hostile or len(parts) > _PARTS_MAX or any(len(part.encode()) > 255 for part in parts):  # noqa: PLR2004
        _refuse(folder)
    return parts


def _refuse(folder: str) -> None:
    raise OutsideWorkspace(
        f"the location {folder[:200]!r} is not a folder inside the workspace.",
        remedy="Name a folder relative to the workspace, without '..'.",
    )


def require_name(name: str) -> None:
    """See to it that a file's name is one name and no path.

    Raises:
        OutsideWorkspace: It leads elsewhere.
    """
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        _refuse(name)


def inside(workspace: Workspace, folder: str) -> str:
    """Check a location; nothing is made.

    Args:
        workspace: What must not be left.
        folder: Relative to the workspace.

    Returns:
        The same, in its plain form.

    Raises:
        OutsideWorkspace: It leads out, also by a link on the way, or into the bridge's own state.
    """
    parts = parts_of(folder)
    if not parts or parts[0] in {workspace.state_dir.name, workspace.inbox.name}:
        _refuse(folder)
    home = Path(os.path.realpath(workspace.home))
    real = Path(os.path.realpath(home.joinpath(*parts)))
    # Whoever owns the workspace may have laid WORKDESK elsewhere; no other link leads out.
    desk = Path(os.path.realpath(workspace.workdesk))
    if parts[0] == workspace.workdesk.name and real.is_relative_to(desk):
        return posixpath.join(*parts)
    if not real.is_relative_to(home) or real == home:
        _refuse(folder)
    if real.relative_to(home).parts[0] in {workspace.state_dir.name, workspace.inbox.name}:
        _refuse(folder)
    return posixpath.join(*parts)


def plain_name(text: str, otherwise: str) -> str:
    """Make one folder name of a text: letters, digits, space, dot, dash; never empty, hidden or long.

    Args:
        text: From a rule, a model, a file's name.
        otherwise: When nothing is left of it.
    """
    kept = "".join(letter if letter.isalnum() or letter in " ._-" else "-" for letter in text)
    name = kept.strip(" .-_").encode()[:80].decode(errors="ignore").rstrip(" .")
    return name if name else otherwise
