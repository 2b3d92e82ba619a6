"""Executes the plan of an action: journaled first, so that a retry completes it after a crash.

Nothing is ever overwritten: where a name is in use, the job's id becomes part of the new name.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from actors.ingest.actions import (
    ActionContext,
    FileTarget,
    FolderTarget,
    Target,
    TextTarget,
    note_name,
    plan,
)
from actors.ingest.journal import Journal, Step, begin, finish
from actors.ingest.paths import OutsideWorkspace, inside
from ops.drop_folder_layout import shortened
from ops.errors import JobFailed, JobRefused
from ops.files import (
    Pulse,
    as_job_error,
    has_content,
    is_link_to,
    link_or_copy,
    require_free_space,
    write_new,
)
from ops.workspace import Workspace

#: Number of times a plan is made again because another job has taken one of its names.
_RACES_MAX = 20
_NAMES_MAX = 100


class _NameTaken(Exception):
    """The name of a step was taken after it was journaled."""


class ActionExecutor:
    """Executes the plan of one job.

    Args:
        action: The file and what to do with it.
        source: Path of the file.
        begun: Journal of an earlier attempt.
        pulse: Called during long operations; may raise to stop.
    """

    def __init__(self, action: ActionContext, source: Path, begun: Journal | None, pulse: Pulse) -> None:
        self._action = action
        self._workspace: Workspace = action.workspace
        self._source = source
        self._begun = begun
        self._pulse = pulse
        self._draft = f".{action.job_id}.part"

    def execute(self) -> Journal:
        """Create all targets that do not exist yet, and return the journal.

        Raises:
            OutsideWorkspace: A target is outside the workspace; nothing is created.
            JobFailed: The disk is full, a folder is not writable, ...; a retry continues.
        """
        try:
            journal = self._plan(None) if self._begun is None else self._begun
            for _ in range(_RACES_MAX):
                try:
                    for step in journal.steps:
                        self._create(step)
                except _NameTaken:
                    journal = self._plan(journal)
                    continue
                finish(self._workspace, self._action.job_id)
                return journal
        except OSError as error:
            what = self._action.payload.name if error.filename is None else error.filename
            raise as_job_error(error, f"{what!r} cannot be created") from error
        raise JobFailed(
            f"No name for {self._action.payload.name!r} stays free: other jobs take each one.",
            remedy="The job is retried.",
        )

    def _plan(self, before: Journal | None) -> Journal:
        """Compare the plan with what exists, choose names, and write the journal.

        Args:
            before: An earlier journal; what it has created is kept.
        """
        made = set() if before is None else {step.path for step in before.steps if step.made}
        steps: list[Step] = []
        for target in plan(self._action):
            steps += self._steps(target, steps, made)
        journal = Journal(
            job_id=self._action.job_id,
            name=self._action.payload.name,
            decision=self._action.decision,
            steps=steps,
        )
        begin(self._workspace, journal)
        return journal

    def _steps(self, target: Target, before: list[Step], made: set[str]) -> Iterator[Step]:
        payload = self._action.payload
        known = {step.path for step in before}
        folder = target.path if isinstance(target, FolderTarget) else target.folder
        yield from self._folders(folder, known, made)
        if isinstance(target, FileTarget):
            kind: Literal["file", "link"] = "link" if payload.kind == "link" else "file"
            wanted = _wanted(kind, payload.name, payload.sha256, payload.size_bytes, text=payload.link)
            step = self._free(folder, wanted, made)
            yield step
            if payload.note is not None:
                name = shortened(note_name(step.path.rpartition("/")[2]))
                yield self._text(folder, name, payload.note, made)
        elif isinstance(target, TextTarget):
            if target.once and os.path.lexists(self._at(f"{folder}/{target.name}")):
                return
            file = next((step.path for step in before if step.kind == "file"), "")
            text = target.text.replace("{file}", posixpath.relpath(file, folder))
            yield self._text(folder, shortened(target.name), text, made)
        elif payload.kind == "folder" and folder not in known | made and self._at(folder).is_dir():
            # Named in the journal though it exists, since the result names it.
            yield Step(kind="folder", path=folder, made=False)

    def _folders(self, path: str, known: set[str], made: set[str]) -> Iterator[Step]:
        """Yield a step for each missing folder of a path, from the top."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            place = self._at(part)
            exists = place.is_dir()
            # Checked twice: the job of another file of the same folder may have created it in between.
            if not exists and os.path.lexists(place) and not place.is_dir():
                raise JobRefused(
                    f"{part!r} exists and is not a folder.", remedy="Move it away, or use another folder."
                )
            if part not in known and (part in made or not exists):
                yield Step(kind="folder", path=part, made=True)

    def _text(self, folder: str, name: str, text: str, made: set[str]) -> Step:
        data = text.encode()
        wanted = _wanted("text", name, hashlib.sha256(data).hexdigest(), len(data), text=text)
        return self._free(folder, wanted, made)

    def _free(self, folder: str, wanted: Step, made: set[str]) -> Step:
        """Return a step with the first name that is free, or that has this content already.

        Args:
            folder: The folder.
            wanted: The step with the wanted name as its path.
            made: What an earlier attempt has created.
        """
        for number in range(_NAMES_MAX):
            tail = "" if number == 0 else f"~{self._action.job_id}{'' if number == 1 else f'-{number}'}"
            name = wanted.path if tail == "" else shortened(wanted.path, tail)
            path = posixpath.join(folder, name)
            place = self._at(path)
            if not os.path.lexists(place):
                return msgspec.structs.replace(wanted, path=path, made=True)
            if self._exists(place, wanted):
                return msgspec.structs.replace(wanted, path=path, made=path in made)
        raise JobFailed(
            f"No name for {wanted.path!r} is free in {folder!r} ({_NAMES_MAX} tried).",
            remedy="Remove files from that folder.",
        )

    def _exists(self, place: Path, step: Step) -> bool:
        """Return whether a path is what a step creates."""
        if step.kind == "link":
            return is_link_to(place, step.text)
        return has_content(place, step.sha256, step.size_bytes, self._pulse)

    def _at(self, path: str) -> Path:
        return self._workspace.home / path

    def _create(self, step: Step) -> None:
        place = self._at(step.path)
        # Checked again just before: a folder of the path may have been replaced by a link since the plan.
        if inside(self._workspace, step.path) != step.path:
            raise OutsideWorkspace
        if step.kind == "folder":
            place.mkdir(exist_ok=True)
            return
        # A crash while publishing a draft may have left it.
        (place.parent / self._draft).unlink(missing_ok=True)
        if os.path.lexists(place):
            if not self._exists(place, step):
                raise _NameTaken
            return
        try:
            if step.kind == "file":
                needed_bytes = 0 if _can_link(self._source, place.parent) else step.size_bytes
                require_free_space(place.parent, needed_bytes)
                link_or_copy(self._source, place, self._draft, self._pulse)
            elif step.kind == "link":
                os.symlink(step.text, place)  # noqa: PTH211 (the text as it is, without normalization)
            else:
                require_free_space(place.parent, step.size_bytes)
                write_new(place, step.text.encode(), self._draft)
        except FileExistsError as error:
            if not self._exists(place, step):
                raise _NameTaken from error


def _wanted(
    kind: Literal["file", "link", "text"], name: str, sha256: str, size_bytes: int, *, text: str
) -> Step:
    return Step(kind=kind, path=name, made=True, sha256=sha256, size_bytes=size_bytes, text=text)


def _can_link(source: Path, folder: Path) -> bool:
    found = source.stat()
    return found.st_nlink == 1 and found.st_dev == folder.stat().st_dev
