"""Scan the drop folder and its subfolders."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ingress.core.drop_folder import AcceptedNames
from ops.drop_folder_layout import NOTE_MAX_BYTES, NOTE_SUFFIX, RESERVED_FOLDERS

#: Depth down to which subfolders are scanned.
DEPTH_MAX = 12
#: Limits of one scan; further files are found once these have been claimed.
FILES_MAX = 20_000
FOLDERS_MAX = 4_000


class DroppedFile(NamedTuple):
    """An entry of the drop folder that is not a folder.

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
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def signature(self) -> tuple[int, ...]:
        """Inode, size and time, of the note too: equal in two scans if nothing was written in between."""
        own = (self.inode, self.size_bytes, self.mtime_ns)
        return own if self.note is None else (*own, *self.note.signature)


class Scan(NamedTuple):
    """Result of one scan.

    Attributes:
        files: All entries except folders and ignored names.
        folders: All folders that were scanned, the drop folder first.
        errors: One sentence for each folder that cannot be listed.
    """

    files: list[DroppedFile]
    folders: list[str]
    errors: list[str]


class Scanner:
    """Scans the drop folder.

    Args:
        root: The drop folder.
        ignore: Patterns of names to ignore; the bridge's own temporary names are always ignored.
    """

    def __init__(self, root: Path, ignore: Sequence[str]) -> None:
        self.root = str(root)
        self._names = AcceptedNames(ignore)

    def scan(self) -> Scan:
        """Scan the folder and its subfolders; symbolic links are not followed."""
        result = Scan([], [], [])
        waiting = [""]
        while waiting and len(result.folders) < FOLDERS_MAX and len(result.files) < FILES_MAX:
            folder = waiting.pop(0)
            try:
                listing = list(self._list(folder))
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    result.errors.append(f"{folder or self.root!r} cannot be listed: {error.strerror}.")
                continue
            result.folders.append(os.path.join(self.root, folder) if folder else self.root)  # noqa: PTH118
            result.files.extend(_with_notes([item for item in listing if not stat.S_ISDIR(item.mode)]))
            if folder.count(os.sep) + 1 < DEPTH_MAX:
                waiting += [
                    os.path.join(folder, item.name)  # noqa: PTH118
                    for item in listing
                    if stat.S_ISDIR(item.mode)
                ]
        return result

    def _list(self, folder: str) -> Iterator[DroppedFile]:
        with os.scandir(os.path.join(self.root, folder)) as listing:  # noqa: PTH118
            for entry in listing:
                if self._names.is_ignored(entry.name):
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    # Removed or claimed by another station since the listing.
                    continue
                # A file with the name of one of our folders is a dropped file, and has to get out of the way.
                if folder == "" and entry.name in RESERVED_FOLDERS and stat.S_ISDIR(info.st_mode):
                    continue
                yield DroppedFile(
                    self.root,
                    folder,
                    entry.name,
                    info.st_mode,
                    info.st_size,
                    info.st_mtime_ns,
                    info.st_ino,
                )


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


def _with_notes(files: list[DroppedFile]) -> Iterator[DroppedFile]:
    """Attach each note to its file."""
    by_name = {item.name: item for item in files}
    for item in files:
        base = item.name.removesuffix(NOTE_SUFFIX)
        is_note = base not in (item.name, "") and item.is_file and item.size_bytes <= NOTE_MAX_BYTES
        if is_note and base in by_name and by_name[base].is_file:
            continue
        note = by_name.get(item.name + NOTE_SUFFIX)
        if note is not None and item.is_file and note.is_file and note.size_bytes <= NOTE_MAX_BYTES:
            yield item._replace(note=note)
        else:
            yield item._replace(is_orphan_note=is_note)
