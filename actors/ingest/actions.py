"""The seven actions: for each, which folders, files and texts there have to be afterwards.

An action is a plan, not a deed: it says what is wanted, the same each time it is asked about the same job.
What is there already, and under which name the rest goes, is for ``actors.ingest.executor`` to see.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from actors.ingest.decision import Action, Decision, day_of
from actors.ingest.paths import inside, parts_of, plain_name
from middleware.job.types import IngestFilePayload
from ops.drop_folder_layout import NOTE_SUFFIX
from ops.workspace import Workspace

PROJECTS = "PROJECTS"
CODEX = "CODEX"
GROUPS = "GROUPS"
ARCHIVE = "ARCHIVE"
REFERENCE = "REFERENCE"


class ActionContext(NamedTuple):
    """The file that an action is about.

    Attributes:
        workspace: What must not be left.
        job_id: Of the job; its day and its suffixes come from here.
        payload: The file.
        decision: What is to be done.
    """

    workspace: Workspace
    job_id: str
    payload: IngestFilePayload
    decision: Decision


class Folder(NamedTuple):
    """A folder is wanted, relative to the workspace."""

    path: str


class FileTarget(NamedTuple):
    """The file itself is wanted in this folder, and its note beside it."""

    folder: str


class Text(NamedTuple):
    """A text of ours is wanted.

    Attributes:
        folder: Where.
        name: Under which name.
        text: May name the file's final place as ``{file}``, relative to the folder.
        once: One that is there already, whatever it says, is as good.
    """

    folder: str
    name: str
    text: str
    once: bool = False


Target: TypeAlias = Folder | FileTarget | Text


def _below(subject: ActionContext, root: str) -> str:
    """Give the folder in which it was dropped, below another one."""
    return posixpath.join(root, *parts_of(subject.payload.folder))


def _root(subject: ActionContext, otherwise: str) -> str:
    location = subject.decision.location
    return otherwise if location is None else inside(subject.workspace, location)


def _named(subject: ActionContext, root: str, otherwise: str) -> str:
    """Give a folder of its own below a root: one with a name, not with a path."""
    location = subject.decision.location
    return inside(
        subject.workspace, posixpath.join(root, plain_name(otherwise if location is None else location, root))
    )


def _edit(subject: ActionContext) -> Iterator[Target]:
    yield FileTarget(_below(subject, _root(subject, subject.workspace.workdesk.name)))


def _move(subject: ActionContext) -> Iterator[Target]:
    yield FileTarget(_root(subject, subject.workspace.workdesk.name))


def _project(subject: ActionContext) -> Iterator[Target]:
    stem = subject.payload.name.rpartition(".")[0]
    home = _named(subject, PROJECTS, stem if stem else subject.payload.name)
    support = posixpath.join(home, "support")
    yield Folder(support)
    yield Folder(posixpath.join(home, "output"))
    yield FileTarget(support)
    title = home.rpartition("/")[2]
    about = f"# {title}\n\nBegun on {day_of(subject.job_id):%Y-%m-%d} with `support/`: {_about(subject)}\n"
    yield Text(home, "README.md", about, once=True)


def _codex(subject: ActionContext) -> Iterator[Target]:
    yield FileTarget(_below(subject, subject.workspace.workdesk.name))
    payload, decision = subject.payload, subject.decision
    lines = [
        f"# {_line(payload.name)}",
        "",
        "- file: <{file}>",
        f"- taken in: {day_of(subject.job_id):%Y-%m-%d} by job {subject.job_id}",
        f"- SHA-256: {payload.sha256}, {payload.size_bytes} bytes",
    ]
    if payload.media_type:
        lines.append(f"- type: {payload.media_type}")
    if decision.links:
        lines.append(f"- links: {', '.join(_line(link) for link in decision.links)}")
    lines += ["", _about(subject)]
    text = "\n".join(lines)
    yield Text(_root(subject, CODEX), f"{payload.name}.md", text + "\n")


def _group(subject: ActionContext) -> Iterator[Target]:
    kind = subject.payload.media_type.partition("/")[0]
    yield FileTarget(_named(subject, GROUPS, kind if kind else "other"))


def _archive(subject: ActionContext) -> Iterator[Target]:
    yield FileTarget(posixpath.join(_root(subject, ARCHIVE), f"{day_of(subject.job_id):%Y/%m}"))


def _reference(subject: ActionContext) -> Iterator[Target]:
    yield FileTarget(_root(subject, REFERENCE))


def _line(text: str) -> str:
    return " ".join(text.split())


def _about(subject: ActionContext) -> str:
    note = subject.payload.note
    said = subject.decision.reason if note is None else note
    return _line(said).replace("{", "(").replace("}", ")")


PLANS: dict[Action, Callable[[ActionContext], Iterator[Target]]] = {
    "EDIT": _edit,
    "MOVE": _move,
    "PROJECT": _project,
    "CODEX": _codex,
    "GROUP": _group,
    "ARCHIVE": _archive,
    "REFERENCE": _reference,
}


def plan(subject: ActionContext) -> list[Target]:
    """Give what an action wants, in the order in which it is done.

    Raises:
        OutsideWorkspace: The decision's location, or the folder it was dropped in, leads out.
    """
    return list(PLANS[subject.decision.action](subject))


def note_name(file_name: str) -> str:
    """Give the name of a file's note."""
    return f"{file_name}{NOTE_SUFFIX}"
