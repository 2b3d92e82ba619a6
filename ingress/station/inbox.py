"""What lies in the drop folder: one look through it, subfolders included."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ingress.core.drop_folder import AcceptedNames
from ops.dropfolder import NOTE_MAX_BYTES, NOTE_SUFFIX, ROOMS

#: Deeper folders are not looked into.
DEPTH_MAX = 12
#: One look gives at most so many files; the rest come with the next ones.
FILES_MAX = 20_000
FOLDERS_MAX = 4_000


class Found(NamedTuple):
    """Something that lies in the drop folder.

    Attributes:
        root: The drop folder.
        folder: Where below it; empty at the top. Names may hold bytes that are no UTF-8, as ``os.fsdecode``
            gives them.
        name: Its own name.
        mode: As ``os.stat`` gives it, of the thing itself, never of what a link points to.
        size_bytes: Its size.
        mtime_ns: When its content changed.
        inode: Its number in the file system.
        note: The companion ``NAME.note.txt``, if there is one.
        lonely: It is such a companion itself, of a file that is not there.
    """

    root: str
    folder: str
    name: str
    mode: int
    size_bytes: int
    mtime_ns: int
    inode: int
    note: Found | None = None
    lonely: bool = False

    @property
    def path(self) -> str:
        """The whole path."""
        return os.path.join(self.root, self.folder, self.name)  # noqa: PTH118 (thousands are made)

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
        """What stands still when nobody writes to it or its note any more."""
        own = (self.inode, self.size_bytes, self.mtime_ns)
        return own if self.note is None else (*own, *self.note.signature)


class Look(NamedTuple):
    """What one look has found.

    Attributes:
        files: Everything but folders and what is ignored.
        folders: All folders that were looked into, the drop folder first.
        troubles: What could not be looked at, a sentence each.
    """

    files: list[Found]
    folders: list[str]
    troubles: list[str]


class Inbox:
    """Looks through the drop folder.

    Args:
        root: The drop folder.
        ignore: Patterns of names that are left alone; our own drafts always are.
    """

    def __init__(self, root: Path, ignore: Sequence[str]) -> None:
        self.root = str(root)
        self.names = AcceptedNames(ignore)

    def look(self) -> Look:
        """Look through the folder; links are never followed."""
        seen = Look([], [], [])
        waiting = [""]
        while waiting and len(seen.folders) < FOLDERS_MAX and len(seen.files) < FILES_MAX:
            folder = waiting.pop(0)
            try:
                listing = list(self._list(folder))
            except OSError as error:
                # Gone again, or not ours to read; the others are looked at all the same.
                if not isinstance(error, FileNotFoundError):
                    seen.troubles.append(f"{folder or self.root!r} cannot be listed: {error.strerror}.")
                continue
            seen.folders.append(os.path.join(self.root, folder) if folder else self.root)  # noqa: PTH118
            seen.files.extend(_paired([item for item in listing if not stat.S_ISDIR(item.mode)]))
            if folder.count(os.sep) + 1 < DEPTH_MAX:
                waiting += [
                    os.path.join(folder, item.name)  # noqa: PTH118
                    for item in listing
                    if stat.S_ISDIR(item.mode)
                ]
        return seen

    def _list(self, folder: str) -> Iterator[Found]:
        with os.scandir(os.path.join(self.root, folder)) as listing:  # noqa: PTH118
            for entry in listing:
                if self.names.is_ignored(entry.name):
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    # Somebody else has taken it since.
                    continue
                # A file of a room's name is a dropped file, and would be in the room's way.
                if folder == "" and entry.name in ROOMS and stat.S_ISDIR(info.st_mode):
                    continue
                yield Found(
                    self.root,
                    folder,
                    entry.name,
                    info.st_mode,
                    info.st_size,
                    info.st_mtime_ns,
                    info.st_ino,
                )


@contextlib.contextmanager
def folder_of(found: Found) -> Iterator[int]:
    """Open the folder in which something was found, without going through any link.

    Since the look, a folder on the way may have been replaced by a link: what is done by the whole path then
    is done to files of elsewhere.

    Raises:
        FileNotFoundError: There is no such folder any more.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(found.root, flags)
    try:
        for part in Path(found.folder).parts:
            outer = fd
            try:
                fd = os.open(part, flags | os.O_NOFOLLOW, dir_fd=outer)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise FileNotFoundError(errno.ENOENT, "it is no folder any more", found.path) from error
                raise
            os.close(outer)
        yield fd
    finally:
        os.close(fd)


def _paired(files: list[Found]) -> Iterator[Found]:
    """Put each note to its file."""
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
            yield item._replace(lonely=is_note)
