"""Files that have been taken: one folder each, named by the id of the job that they become.

    .claimed/JOB_ID/[FOLDER/]NAME            and NAME.note.txt beside it
    .claimed/JOB_ID.tries                    while a claim of an earlier station is read

Taking a file is one rename, so of two stations one gets it. The folder's name is the job's id, so a claim
that a crash left behind is simply handed in again: the store knows an id that it has taken before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from ingress.core.drop_folder import utf8_name
from ingress.station.inbox import Found, folder_of
from middleware.job.ids import ID_LENGTH, is_id_part, new_job_id
from ops.dropfolder import (
    CLAIMED,
    NOTE_SUFFIX,
    REASON_SUFFIX,
    claim_folder,
    failed_folder,
    shortened,
)
from ops.logs import get_logger
from ops.workspace import Workspace

#: Counts, in bytes, how often a station began with a claim that an earlier one had left behind. Beside the
#: claim's folder, not in it: a dropped file may have any name.
_TRIES = ".tries"

log = get_logger(__name__)


class Claim(NamedTuple):
    """A file that has been taken.

    Attributes:
        job_id: Of the job that it becomes.
        path: Where it lies now.
        folder: Below the drop folder, where it was dropped.
        name: Its name, in UTF-8.
        note: Its companion, or None.
    """

    job_id: str
    path: Path
    folder: str
    name: str
    note: Path | None = None


def _rename(found: Found, target: Path) -> None:
    if found.folder == "":
        os.rename(found.path, target)  # noqa: PTH104 (thousands are taken at once)
        return
    with folder_of(found) as folder:
        os.rename(found.name, target, src_dir_fd=folder)


class Claims:
    """The claimed files of one drop folder.

    Args:
        workspace: Whose drop folder.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.root = workspace.inbox / CLAIMED

    def take(self, found: Found) -> Claim | None:
        """Take a file out of the drop folder, and its note with it.

        Returns:
            The claim; None if somebody else was quicker.

        Raises:
            OSError: It cannot be taken.
        """
        job_id = new_job_id()
        folder = utf8_name(found.folder)
        home = claim_folder(self._workspace, job_id)
        place = home / folder
        place.mkdir(parents=True)
        target = place / utf8_name(found.name)
        try:
            _rename(found, target)
        except OSError as error:
            self._remove(home)
            if isinstance(error, FileNotFoundError):
                return None
            raise
        note = None if found.note is None else self._take_note(found.note, target)
        return Claim(job_id, target, folder, target.name, note)

    def _take_note(self, found: Found, file: Path) -> Path | None:
        target = file.with_name(shortened(file.name + NOTE_SUFFIX))
        # Whoever wrote it has taken it back: then there is none.
        with contextlib.suppress(FileNotFoundError):
            _rename(found, target)
            return target
        return None

    def all_ids(self) -> list[str]:
        """Give the ids of all claims, oldest first."""
        try:
            names = os.listdir(self.root)  # noqa: PTH208 (names are all that is wanted)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if len(name) == ID_LENGTH and is_id_part(name))

    def load(self, job_id: str) -> Claim | None:
        """Read a claim off its folder; None if there is no file in it."""
        home = claim_folder(self._workspace, job_id)
        # A link to a folder is listed with the folders, and not entered.
        files = [
            file
            for folder, folders, names in os.walk(home)
            for file in (Path(folder, name) for name in (*folders, *names))
            if file.name in names or file.is_symlink()
        ]
        if not files:
            return None
        # The note's name is the longer one.
        path, *rest = sorted(files, key=lambda file: (len(file.name), file.name))
        note = next((file for file in rest if file.name.endswith(NOTE_SUFFIX)), None)
        relative = path.parent.relative_to(home).as_posix()
        return Claim(job_id, path, "" if relative == "." else relative, path.name, note)

    def age_s(self, job_id: str, now_s: float) -> float:
        """Tell how old a claim is, by the clock of the file system; 0 if it is gone."""
        try:
            return now_s - claim_folder(self._workspace, job_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def count_try(self, job_id: str) -> int:
        """Count that a claim is begun anew after a crash, and tell how often it was."""
        if not self.holds(job_id):
            return 0
        try:
            with self._tries(job_id).open("ab", buffering=0) as file:
                file.write(b".")
                return file.tell()
        except OSError as error:
            # A full disk, for instance: it is read all the same, and whether that ends us is not counted.
            log.warning("station.try_not_counted", job_id=job_id, reason=str(error))
            return 0

    def forget_tries(self, job_id: str) -> None:
        """A station has read a claim and lives: however often it is put off yet, that ends nobody."""
        self._tries(job_id).unlink(missing_ok=True)

    def _tries(self, job_id: str) -> Path:
        return self.root / f"{job_id}{_TRIES}"

    def holds(self, job_id: str) -> bool:
        """Tell whether there is a claim of this id."""
        return claim_folder(self._workspace, job_id).is_dir()

    def discard(self, job_id: str) -> bool:
        """Remove a file whose job is done, from ``failed/`` too, and tell whether there was one."""
        found = self.holds(job_id)
        self._remove(claim_folder(self._workspace, job_id))
        self._remove(failed_folder(self._workspace, job_id))
        self.forget_tries(job_id)
        return found

    def fail(self, job_id: str, reason: str) -> Path | None:
        """Lay a file into ``failed/``, with the reason beside it.

        Args:
            job_id: Of the claim.
            reason: What happened and what to do, a few lines.

        Returns:
            Where its folder is now; None if there was no such claim.

        Raises:
            OSError: It cannot be moved.
        """
        claim = self.load(job_id)
        if claim is None:
            self._remove(claim_folder(self._workspace, job_id))
            return None
        claim.path.with_name(shortened(claim.name + REASON_SUFFIX)).write_text(reason, encoding="utf-8")
        target = failed_folder(self._workspace, job_id)
        target.parent.mkdir(exist_ok=True)
        claim_folder(self._workspace, job_id).rename(target)
        self.forget_tries(job_id)
        return target

    def _remove(self, folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            # Nearly always one file, or two, and no folder: quicker than a walk.
            for name in os.listdir(folder):  # noqa: PTH208
                try:
                    (folder / name).unlink()
                except (IsADirectoryError, PermissionError):
                    shutil.rmtree(folder)
                    return
            folder.rmdir()
