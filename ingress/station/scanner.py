"""Scan the drop folder and its subfolders."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ingress.core.drop_folder import AcceptedNames, utf8_name
from middleware.job.ids import ID_LENGTH, is_id_part
from ops.drop_folder_layout import FAILED, NOTE_MAX_BYTES, NOTE_SUFFIX, RESERVED_FOLDERS, UNDONE
from ops.ignored_names import PARTIAL_SUFFIXES
from ops.settings.station import StationSettings

#: Limit of the depth of subfolders; deeper ones are reported, not scanned.
DEPTH_MAX = 256
#: Limits of one scan; further files are found once these have been claimed.
FILES_MAX = 20_000
FOLDERS_MAX = 100_000
#: Entries that are left and are named; all are counted.
LEFT_MAX = 1_000


class DroppedFile(NamedTuple):
    """An entry of the drop folder: a file, a link, an empty folder, or something that is refused.

    Attributes:
        root: The drop folder.
        folder: Subfolder, relative to ``root``; empty at the top. It and ``name`` may hold bytes that are not
            UTF-8, as ``os.fsdecode`` returns them.
        name: File name.
        mode: From ``os.lstat``, so that of a link itself.
        size_bytes: Size.
        mtime_ns: Time of the last change of the content.
        inode: Inode number.
        note: The companion ``NAME.note.txt``, if there is one.
        is_orphan_note: Whether this is a companion whose file is missing.
    """

    root: str
    folder: str
    name: str
    mode: int
    size_bytes: int
    mtime_ns: int
    inode: int
    note: DroppedFile | None = None
    is_orphan_note: bool = False

    @property
    def path(self) -> str:
        """Absolute path."""
        return os.path.join(self.root, self.folder, self.name)  # noqa: PTH118 (called for thousands of files)

    @property
    def relative(self) -> str:
        """Path relative to the drop folder."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def signature(self) -> tuple[int, ...]:
        """Inode, size and time, of the note too: equal in two scans if nothing was written in between."""
        own = (self.inode, self.size_bytes, self.mtime_ns)
        return own if self.note is None else (*own, *self.note.signature)


class Left(NamedTuple):
    """An entry that the station does not claim.

    Attributes:
        path: Path relative to the drop folder, in UTF-8.
        reason: Why, some words.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


class ScannedFolder(NamedTuple):
    """A subfolder of the drop folder.

    Attributes:
        entry: The folder itself.
        entries: Number of its entries, ignored ones included.
    """

    entry: DroppedFile
    entries: int


class Scan:
    """Result of one scan.

    Attributes:
        files: All entries except folders and ignored names.
        folders: All folders that were scanned, the drop folder first.
        subfolders: The folders below the drop folder, each after the one that contains it.
        left: The first entries that stay where they are, with the reason.
        left_count: Number of all such entries.
    """

    def __init__(self) -> None:
        self.files: list[DroppedFile] = []
        self.folders: list[str] = []
        self.subfolders: list[ScannedFolder] = []
        self.left: list[Left] = []
        self.left_count = 0

    def leave(self, path: str, reason: str) -> None:
        """Record an entry that stays where it is."""
        self.left_count += 1
        if len(self.left) < LEFT_MAX:
            self.left.append(Left(utf8_name(path), reason))


class Scanner:
    """Scans the drop folder.

    Args:
        root: The drop folder.
        settings: Which names are ignored.
    """

    def __init__(self, root: Path, settings: StationSettings) -> None:
        self.root = str(root)
        self._names = AcceptedNames(settings)

    def scan(self) -> Scan:
        """Scan the folder and its subfolders; symbolic links are not followed."""
        result = Scan()
        waiting: list[DroppedFile | None] = [None]
        at = 0
        while at < len(waiting) and at < FOLDERS_MAX and len(result.files) < FILES_MAX:
            entry = waiting[at]
            at += 1
            folder = "" if entry is None else entry.relative
            try:
                listing, ignored = self._list(folder, result)
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    result.leave(folder or self.root, f"cannot be listed: {error.strerror}")
                continue
            result.folders.append(os.path.join(self.root, folder) if folder else self.root)  # noqa: PTH118
            if entry is not None:
                result.subfolders.append(ScannedFolder(entry, len(listing) + len(ignored)))
            files = _complete([item for item in listing if not item.is_folder], ignored, result)
            result.files.extend(_with_notes(files))
            folders = [item for item in listing if item.is_folder]
            if folder.count(os.sep) + 1 < DEPTH_MAX:
                waiting += folders
            else:
                for item in folders:
                    result.leave(item.relative, f"deeper than {DEPTH_MAX} folders")
        if at < len(waiting) and at == FOLDERS_MAX:
            result.leave(self.root, f"more than {FOLDERS_MAX} folders")
        return result

    def _list(self, folder: str, result: Scan) -> tuple[list[DroppedFile], set[str]]:
        """Return the entries of a folder that are not ignored, and the names of the others in lower case."""
        found: list[DroppedFile] = []
        ignored: set[str] = set()
        with os.scandir(os.path.join(self.root, folder)) as listing:  # noqa: PTH118
            for entry in listing:
                name = entry.name
                why = self._names.why_ignored(name)
                if why:
                    ignored.add(name.lower())
                    if why != "own" and not (folder == "" and name in RESERVED_FOLDERS):
                        result.leave(f"{folder}/{name}" if folder else name, why)
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    # Removed or claimed by another station since the listing.
                    continue
                # A file with the name of one of our folders is a dropped file, and has to get out of the way.
                if folder == "" and name in RESERVED_FOLDERS and stat.S_ISDIR(info.st_mode):
                    continue
                found.append(_entry(self.root, folder, name, info))
        return found, ignored


def foreign_entries(root: Path) -> list[Left]:
    """Return what was put into the station's own folders, which are not scanned.

    Args:
        root: The drop folder.
    """
    found = []
    for folder in (FAILED, UNDONE):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found += [
                Left(utf8_name(f"{folder}/{name}"), "in a folder of the station's own")
                for name in os.listdir(root / folder)  # noqa: PTH208 (only the names are needed)
                if len(name) != ID_LENGTH or not is_id_part(name)
            ]
    return found


def _entry(root: str, folder: str, name: str, info: os.stat_result) -> DroppedFile:
    return DroppedFile(root, folder, name, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino)


@contextlib.contextmanager
def open_folder(file: DroppedFile) -> Iterator[int]:
    """Open the folder of a file without following symbolic links; yield its descriptor.

    A folder on the path may have been replaced by a link since the scan. With the whole path, the next step
    would then act on a file outside the drop folder.

    Raises:
        FileNotFoundError: The folder does not exist any more.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(file.root, flags)
    try:
        for part in Path(file.folder).parts:
            outer = fd
            try:
                fd = os.open(part, flags | os.O_NOFOLLOW, dir_fd=outer)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise FileNotFoundError(errno.ENOENT, "not a folder any more", file.path) from error
                raise
            os.close(outer)
        yield fd
    finally:
        os.close(fd)


def _complete(files: list[DroppedFile], ignored: set[str], result: Scan) -> Iterator[DroppedFile]:
    """Leave out files that a program is still downloading, as a partial file beside them shows.

    Args:
        files: Files of one folder.
        ignored: Names of the ignored entries of the folder, in lower case.
        result: Records what is left out.
    """
    for item in files:
        lower = item.name.lower() if ignored else ""
        partial = next((end for end in PARTIAL_SUFFIXES if lower + end in ignored), None) if ignored else None
        if partial is None:
            yield item
        else:
            result.leave(item.relative, f"incomplete while {utf8_name(item.name)}{partial} exists")


def _with_notes(files: Iterator[DroppedFile]) -> Iterator[DroppedFile]:
    """Attach each note to its file."""
    by_name = {item.name: item for item in files}
    for item in by_name.values():
        base = item.name.removesuffix(NOTE_SUFFIX)
        is_note = base not in (item.name, "") and item.is_file and item.size_bytes <= NOTE_MAX_BYTES
        if is_note and base in by_name and by_name[base].is_file:
            continue
        note = by_name.get(item.name + NOTE_SUFFIX)
        if note is not None and item.is_file and note.is_file and note.size_bytes <= NOTE_MAX_BYTES:
            yield item._replace(note=note)
        else:
            yield item._replace(is_orphan_note=is_note)
