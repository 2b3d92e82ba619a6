"""Carries a plan out: first written down, then made, so that a crash at any point is made good by a rerun.

Nothing is ever overwritten: where a name is taken by something else, the job's id becomes part of ours.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.ingest.actions import ActionContext, FileTarget, Folder, Target, Text, note_name, plan
from actors.ingest.journal import Journal, Step, begin, finish
from actors.ingest.paths import OutsideWorkspace, inside
from ops.drop_folder_layout import shortened
from ops.errors import JobFailed, JobRefused
from ops.files import Pulse, as_job_error, has_content, link_or_copy, require_free_space, write_new
from ops.workspace import Workspace

#: Other jobs may take a name between our look and our deed; each time the next name is tried.
_RACES_MAX = 20
_NAMES_MAX = 100


class _Taken(Exception):
    """Somebody else has taken the name of a step since it was written down."""


class ActionExecutor:
    """Carries out the plan of one job.

    Args:
        subject: The file and what is to be done.
        source: Where the file lies.
        begun: What an earlier attempt has written down.
        pulse: Called now and then; may raise to stop.
    """

    def __init__(self, subject: ActionContext, source: Path, begun: Journal | None, pulse: Pulse) -> None:
        self._subject = subject
        self._workspace: Workspace = subject.workspace
        self._source = source
        self._begun = begun
        self._pulse = pulse
        self._draft = f".{subject.job_id}.part"

    def execute(self) -> Journal:
        """Make everything that is wanted and not there yet.

        Raises:
            OutsideWorkspace: The plan leads out of the workspace; nothing is made.
            JobFailed: The disk is full, a folder may not be written to, ...; a rerun goes on.
        """
        try:
            journal = self._written(None) if self._begun is None else self._begun
            for _ in range(_RACES_MAX):
                try:
                    for step in journal.steps:
                        self._make(step)
                except _Taken:
                    journal = self._written(journal)
                    continue
                finish(self._workspace, self._subject.job_id)
                return journal
        except OSError as error:
            what = self._subject.payload.name if error.filename is None else error.filename
            raise as_job_error(error, f"{what!r} cannot be made") from error
        raise JobFailed("others keep taking the name.", remedy="The job is tried again.")

    def _written(self, before: Journal | None) -> Journal:
        """Look at what is there, settle on names, and write it all down.

        Args:
            before: What an earlier look wrote down; what it has made already stays as it is.
        """
        made = set() if before is None else {step.path for step in before.steps if step.made}
        steps: list[Step] = []
        for want in plan(self._subject):
            steps += self._settle(want, steps, made)
        journal = Journal(
            job_id=self._subject.job_id,
            name=self._subject.payload.name,
            decision=self._subject.decision,
            steps=steps,
        )
        begin(self._workspace, journal)
        return journal

    def _settle(self, want: Target, before: list[Step], made: set[str]) -> Iterator[Step]:
        payload = self._subject.payload
        known = {step.path for step in before}
        folder = want.path if isinstance(want, Folder) else want.folder
        yield from self._folders(folder, known, made)
        if isinstance(want, FileTarget):
            step = self._free(folder, payload.name, payload.sha256, payload.size_bytes, made)
            yield step
            if payload.note is not None:
                name = shortened(note_name(step.path.rpartition("/")[2]))
                yield self._text(folder, name, payload.note, made)
        elif isinstance(want, Text):
            if want.once and os.path.lexists(self._at(f"{folder}/{want.name}")):
                return
            file = next((step.path for step in before if step.kind == "file"), "")
            text = want.text.replace("{file}", posixpath.relpath(file, folder))
            yield self._text(folder, shortened(want.name), text, made)

    def _folders(self, path: str, known: set[str], made: set[str]) -> Iterator[Step]:
        """Give a step for each part of the way that is not there, from the top."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            place = self._at(part)
            is_there = place.is_dir()
            # Looked at again: of several files of one folder, another's job may have made it just now.
            if not is_there and os.path.lexists(place) and not place.is_dir():
                raise JobRefused(f"{part!r} is no folder.", remedy="Move it away, or name another folder.")
            if part not in known and (part in made or not is_there):
                yield Step(kind="folder", path=part, made=True)

    def _text(self, folder: str, name: str, text: str, made: set[str]) -> Step:
        data = text.encode()
        found = self._free(folder, name, hashlib.sha256(data).hexdigest(), len(data), made)
        return msgspec.structs.replace(found, kind="text", text=text)

    def _free(self, folder: str, name: str, sha256: str, size_bytes: int, made: set[str]) -> Step:
        """Give the first name that is free, or has_content just this already."""
        for number in range(_NAMES_MAX):
            tail = "" if number == 0 else f"~{self._subject.job_id}{'' if number == 1 else f'-{number}'}"
            path = posixpath.join(folder, name if tail == "" else shortened(name, tail))
            place = self._at(path)
            if not os.path.lexists(place):
                return Step(kind="file", path=path, made=True, sha256=sha256, size_bytes=size_bytes)
            if has_content(place, sha256, size_bytes, self._pulse):
                return Step(kind="file", path=path, made=path in made, sha256=sha256, size_bytes=size_bytes)
        raise JobFailed(f"there is no free name for {name!r} in {folder!r}.", remedy="Tidy that folder up.")

    def _at(self, path: str) -> Path:
        return self._workspace.home / path

    def _make(self, step: Step) -> None:
        place = self._at(step.path)
        # Looked at again just before: a link may have been laid on the way since the plan was made.
        if inside(self._workspace, step.path) != step.path:
            raise OutsideWorkspace
        if step.kind == "folder":
            place.mkdir(exist_ok=True)
            return
        # A crash between the two names of a draft leaves the first one.
        (place.parent / self._draft).unlink(missing_ok=True)
        if os.path.lexists(place):
            if not has_content(place, step.sha256, step.size_bytes, self._pulse):
                raise _Taken
            return
        try:
            if step.kind == "file":
                require_free_space(
                    place.parent, 0 if _same_disk(self._source, place.parent) else step.size_bytes
                )
                link_or_copy(self._source, place, self._draft, self._pulse)
            else:
                require_free_space(place.parent, step.size_bytes)
                write_new(place, step.text.encode(), self._draft)
        except FileExistsError as error:
            if not has_content(place, step.sha256, step.size_bytes, self._pulse):
                raise _Taken from error


def _same_disk(source: Path, folder: Path) -> bool:
    return source.stat().st_dev == folder.stat().st_dev
