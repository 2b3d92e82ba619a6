"""Claimed entries of the drop folder: one folder each, named by the id of its job.

    .claimed/JOB_ID/[FOLDER/]NAME            and NAME.note.txt beside it
    .claimed/JOB_ID.tries                    while a claim of an earlier station process is read
    .claimed/JOB_ID.folder                   the claim is an empty folder, not what an interrupted claim left

A claim is one rename, so only one of several stations gets a file. Since the folder is named by the job id,
a claim that a crash left behind can be submitted again: the store recognizes the id.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from ingress.core.drop_folder import note_name, utf8_name
from ingress.core.file_claims import Claim, remove_claim
from ingress.station.scanner import DroppedFile, open_folder
from middleware.job.ids import ID_LENGTH, is_id_part, new_job_id
from ops.drop_folder_layout import (
    CLAIMED,
    NOTE_SUFFIX,
    REASON_SUFFIX,
    claim_folder,
    failed_folder,
    shortened,
)
from ops.logs import get_logger
from ops.workspace import Workspace

#: Suffix of a file whose size counts how often a station began to read a claim that another one left behind.
#: It is beside the claim's folder, not in it, since a dropped file can have any name.
_TRIES = ".tries"
#: Suffix of a file that marks the claim of an empty folder.
_FOLDER = ".folder"

log = get_logger(__name__)


def _move(file: DroppedFile, target: Path) -> None:
    """Move an entry of the drop folder that has not changed since the scan.

    Raises:
        FileNotFoundError: It is gone, or has changed.
        OSError: It cannot be moved.
    """
    with open_folder(file) as folder:
        now = os.stat(file.name, dir_fd=folder, follow_symlinks=False)
        if (now.st_ino, now.st_mode) != (file.inode, file.mode):
            raise FileNotFoundError(errno.ENOENT, "replaced since the scan", file.path)
        if file.is_folder:
            # Only rmdir can tell whether it is still empty; nothing that was put into it can be lost.
            target.mkdir()
            os.rmdir(file.name, dir_fd=folder)
            return
        if (now.st_size, now.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            raise FileNotFoundError(errno.ENOENT, "changed since the scan", file.path)
        os.rename(file.name, target, src_dir_fd=folder)


class Claims:
    """The claimed files of one drop folder.

    Args:
        workspace: Workspace of the drop folder.

    Attributes:
        root: Parent of the claim folders.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.root = workspace.inbox / CLAIMED

    def claim(self, file: DroppedFile) -> Claim | None:
        """Move a file and its note, a link or an empty folder from the drop folder to a claim folder.

        Returns:
            The claim; None if another station was quicker, or the entry has changed since the scan.

        Raises:
            OSError: The entry cannot be moved.
        """
        job_id = new_job_id()
        folder = utf8_name(file.folder)
        home = claim_folder(self._workspace, job_id)
        target = home / folder / utf8_name(file.name)
        try:
            target.parent.mkdir(parents=True)
            if file.is_folder:
                self._folder_mark(job_id).touch()
            _move(file, target)
        except OSError as error:
            remove_claim(home)
            self._folder_mark(job_id).unlink(missing_ok=True)
            # A folder that got an entry meanwhile is not empty any more.
            if isinstance(error, FileNotFoundError) or error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return None
            raise
        note = None if file.note is None else self._claim_note(file.note, target)
        return Claim(job_id, target, folder, target.name, note)

    def _claim_note(self, note: DroppedFile, file: Path) -> Path | None:
        target = file.with_name(note_name(file.name))
        # The note may have been removed or changed since the scan; then it becomes a file of its own.
        with contextlib.suppress(FileNotFoundError):
            _move(note, target)
            return target
        return None

    def all_ids(self) -> list[str]:
        """Return the job ids of all claims, oldest first."""
        try:
            names = os.listdir(self.root)  # noqa: PTH208 (only the names are needed)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if len(name) == ID_LENGTH and is_id_part(name))

    def load(self, job_id: str) -> Claim | None:
        """Return the claim of a job id; None if its folder has no file."""
        home = claim_folder(self._workspace, job_id)
        # os.walk lists a link to a folder among the folders, and does not follow it.
        files = [
            file
            for folder, folders, names in os.walk(home)
            for file in (Path(folder, name) for name in (*folders, *names))
            if file.name in names or file.is_symlink()
        ]
        if not files:
            return self._load_folder(job_id, home)
        # The note's name is the longer one.
        path, *rest = sorted(files, key=lambda file: (len(file.name), file.name))
        note = next((file for file in rest if file.name.endswith(NOTE_SUFFIX)), None)
        relative = path.parent.relative_to(home).as_posix()
        return Claim(job_id, path, "" if relative == "." else relative, path.name, note)

    def _load_folder(self, job_id: str, home: Path) -> Claim | None:
        """Return the claim of an empty folder: the innermost one."""
        if not self._folder_mark(job_id).exists():
            return None
        path = home
        while inner := next(iter(path.iterdir()), None) if path.is_dir() else None:
            path = inner
        if path == home:
            return None
        relative = path.parent.relative_to(home).as_posix()
        return Claim(job_id, path, "" if relative == "." else relative, path.name)

    def age_s(self, job_id: str, now_s: float) -> float:
        """Return the age of a claim by the file system's clock, in seconds; 0 if it is gone."""
        try:
            return now_s - claim_folder(self._workspace, job_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def count_try(self, job_id: str) -> int:
        """Count an attempt to read a claim after a crash; return how many there have been."""
        if not self.holds(job_id):
            return 0
        try:
            with self._tries(job_id).open("ab", buffering=0) as file:
                file.write(b".")
                return file.tell()
        except OSError as error:
            # The disk may be full. The claim is read anyway, without protection from files that crash us.
            log.warning("station.attempt_not_counted", job_id=job_id, reason=str(error))
            return 0

    def forget_tries(self, job_id: str) -> None:
        """Reset the count of attempts, after a claim has been read without a crash."""
        self._tries(job_id).unlink(missing_ok=True)

    def _folder_mark(self, job_id: str) -> Path:
        return self.root / f"{job_id}{_FOLDER}"

    def _tries(self, job_id: str) -> Path:
        return self.root / f"{job_id}{_TRIES}"

    def holds(self, job_id: str) -> bool:
        """Return whether there is a claim of this job id."""
        return claim_folder(self._workspace, job_id).is_dir()

    def discard(self, job_id: str) -> bool:
        """Remove the file of a completed job, also from ``failed/``; return whether it was claimed."""
        found = self.holds(job_id)
        remove_claim(claim_folder(self._workspace, job_id))
        remove_claim(failed_folder(self._workspace, job_id))
        self._forget_marks(job_id)
        return found

    def fail(self, job_id: str, reason: str) -> Path | None:
        """Move a claimed file to ``failed/``, and write the reason beside it.

        Args:
            job_id: Job id of the claim.
            reason: What happened and what to do, a few lines.

        Returns:
            Its new folder; None if the claim does not exist.

        Raises:
            OSError: The file cannot be moved.
        """
        claim = self.load(job_id)
        if claim is None:
            remove_claim(claim_folder(self._workspace, job_id))
            return None
        claim.path.with_name(shortened(claim.name + REASON_SUFFIX)).write_text(reason, encoding="utf-8")
        target = failed_folder(self._workspace, job_id)
        target.parent.mkdir(exist_ok=True)
        claim_folder(self._workspace, job_id).rename(target)
        self._forget_marks(job_id)
        return target

    def _forget_marks(self, job_id: str) -> None:
        self.forget_tries(job_id)
        self._folder_mark(job_id).unlink(missing_ok=True)
