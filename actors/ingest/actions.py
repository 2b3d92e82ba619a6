"""The seven actions: which folders, files and texts must exist after each of them.

An action is a declarative plan and the same each time for the same job. ``actors.ingest.executor`` compares
it with what exists, chooses free names and creates the rest.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from actors.ingest.decision import Action, Decision, day_of
from actors.ingest.paths import inside, parts_of, plain_name, require_location
from actors.job_types.ingest_file import IngestFilePayload
from ops.drop_folder_layout import NOTE_SUFFIX, link_problem
from ops.errors import JobRefused
from ops.workspace import Workspace

PROJECTS = "PROJECTS"
CODEX = "CODEX"
GROUPS = "GROUPS"
ARCHIVE = "ARCHIVE"
REFERENCE = "REFERENCE"


class ActionContext(NamedTuple):
    """Input of an action.

    Attributes:
        workspace: The workspace, which bounds all paths.
        job_id: Id of the job; dates and suffixes of names derive from it.
        payload: The file.
        decision: What to do with it.
    """

    workspace: Workspace
    job_id: str
    payload: IngestFilePayload
    decision: Decision


class FolderTarget(NamedTuple):
    """A folder that must exist; its path is relative to the workspace."""

    path: str


class FileTarget(NamedTuple):
    """The folder that must contain the file and, next to it, its note."""

    folder: str


class TextTarget(NamedTuple):
    """A text file, written by the bridge, that must exist.

    Attributes:
        folder: Its folder.
        name: Its name.
        text: Its content; ``{file}`` is replaced by the final path of the file, relative to the folder.
        once: Whether an existing file of this name is kept, whatever its content.
    """

    folder: str
    name: str
    text: str
    once: bool = False


Target: TypeAlias = FolderTarget | FileTarget | TextTarget


def _below(action: ActionContext, root: str) -> str:
    """Return the folder in which the file was dropped, moved below another root."""
    return posixpath.join(root, *parts_of(action.payload.folder))


def _root(action: ActionContext, default: str) -> str:
    """Return the folder of the decision, or the default."""
    location = action.decision.location
    return default if location is None else inside(action.workspace, require_location(location))


def _named(action: ActionContext, root: str, default: str) -> str:
    """Return a folder directly below a root, named by the decision or the default."""
    location = action.decision.location
    name = plain_name(default if location is None else location, root)
    return inside(action.workspace, posixpath.join(root, name))


def _edit(action: ActionContext) -> Iterator[Target]:
    yield FileTarget(_below(action, _root(action, action.workspace.workdesk.name)))


def _move(action: ActionContext) -> Iterator[Target]:
    yield FileTarget(_root(action, action.workspace.workdesk.name))


def _project(action: ActionContext) -> Iterator[Target]:
    stem = action.payload.name.rpartition(".")[0]
    home = _named(action, PROJECTS, stem if stem else action.payload.name)
    support = posixpath.join(home, "support")
    yield FolderTarget(support)
    yield FolderTarget(posixpath.join(home, "output"))
    yield FileTarget(support)
    title = home.rpartition("/")[2]
    about = f"# {title}\n\nCreated on {day_of(action.job_id):%Y-%m-%d} with `support/`: {_about(action)}\n"
    yield TextTarget(home, "README.md", about, once=True)


def _codex(action: ActionContext) -> Iterator[Target]:
    yield FileTarget(_below(action, action.workspace.workdesk.name))
    payload, decision = action.payload, action.decision
    lines = [
        f"# {_line(payload.name)}",
        "",
        "- file: <{file}>",
        f"- ingested: {day_of(action.job_id):%Y-%m-%d} by job {action.job_id}",
        f"- SHA-256: {payload.sha256}, {payload.size_bytes} bytes",
    ]
    if payload.media_type:
        lines.append(f"- type: {payload.media_type}")
    if decision.links:
        lines.append(f"- links: {', '.join(_line(link) for link in decision.links)}")
    lines += ["", _about(action)]
    text = "\n".join(lines)
    yield TextTarget(_root(action, CODEX), f"{payload.name}.md", text + "\n")


def _group(action: ActionContext) -> Iterator[Target]:
    kind = action.payload.media_type.partition("/")[0]
    yield FileTarget(_named(action, GROUPS, kind if kind else "other"))


def _archive(action: ActionContext) -> Iterator[Target]:
    yield FileTarget(posixpath.join(_root(action, ARCHIVE), f"{day_of(action.job_id):%Y/%m}"))


def _reference(action: ActionContext) -> Iterator[Target]:
    yield FileTarget(_root(action, REFERENCE))


def _line(text: str) -> str:
    return " ".join(text.split())


def _about(action: ActionContext) -> str:
    note = action.payload.note
    text = action.decision.reason if note is None else note
    return _line(text).replace("{", "(").replace("}", ")")


PLANS: dict[Action, Callable[[ActionContext], Iterator[Target]]] = {
    "EDIT": _edit,
    "MOVE": _move,
    "PROJECT": _project,
    "CODEX": _codex,
    "GROUP": _group,
    "ARCHIVE": _archive,
    "REFERENCE": _reference,
}


def plan(action: ActionContext) -> list[Target]:
    """Return the targets of an action in the order in which they are created.

    Of an empty folder only folders are created.

    Raises:
        OutsideWorkspace: The location of the decision, or the folder of the drop, is outside the workspace.
        JobRefused: A link is dropped and the action does not keep the folders in which it was.
    """
    targets = list(PLANS[action.decision.action](action))
    payload = action.payload
    if payload.kind == "file":
        return targets
    if payload.kind == "folder":
        return [_as_folder(target, payload.name) for target in targets if not isinstance(target, TextTarget)]
    problem = link_problem(payload.folder, payload.link)
    if problem or action.decision.action != "EDIT":
        raise JobRefused(
            f"The link {payload.name!r} cannot be kept: "
            f"{problem or f'{action.decision.action} does not keep the folders around it'}.",
            remedy="Drop the file that it points to.",
        )
    return targets


def _as_folder(target: FolderTarget | FileTarget, name: str) -> FolderTarget:
    return FolderTarget(posixpath.join(target.folder, name)) if isinstance(target, FileTarget) else target


def note_name(file_name: str) -> str:
    """Return the name of a file's note."""
    return f"{file_name}{NOTE_SUFFIX}"
