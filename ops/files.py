"""Files by their content: read them, compare them, put them somewhere without ever overwriting one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ops.errors import JobFailed, JobRefused

_CHUNK_BYTES = 1_048_576
#: Errors that say "no hard link from here to there": copy instead.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})

Pulse = Callable[[], None]


class NotAFile(OSError):
    """It is a link, a pipe, a device, a directory: nothing whose content can be taken."""


def open_file(path: Path) -> int:
    """Open a regular file for reading; never follows a link and never blocks on a pipe.

    Raises:
        NotAFile: It is something else.
        OSError: It cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotAFile(error.errno, "it is no regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(errno.EINVAL, "it is no regular file", str(path))
    return fd


def digest_of(path: Path, pulse: Pulse) -> tuple[str, int]:
    """Give SHA-256 and size of a file's content, read in pieces.

    Args:
        path: The file.
        pulse: Called after each piece; may raise to stop.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    total, size_bytes = hashlib.sha256(), 0
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        while piece := file.read(_CHUNK_BYTES):
            total.update(piece)
            size_bytes += len(piece)
            pulse()
    return total.hexdigest(), size_bytes


def holds(path: Path, sha256: str, size_bytes: int, pulse: Pulse) -> bool:
    """Tell whether a path is a regular file with this content."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            return False
        return digest_of(path, pulse)[0] == sha256
    except FileNotFoundError:
        return False


def put(source: Path, target: Path, draft_name: str, pulse: Pulse) -> None:
    """Make a file appear under another name, whole and at once, if the name is free.

    A hard link where that is possible: it costs nothing, however large the file, and cannot be half done.
    Otherwise a copy, forced to disk, under a draft's name first.

    Args:
        source: The file.
        target: Its new name; the folder is there.
        draft_name: For a copy; the same again after a crash, so that no draft is left.
        pulse: Called now and then; may raise to stop.

    Raises:
        FileExistsError: The name is taken.
        OSError: It cannot be written.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    else:
        return
    draft = target.parent / draft_name
    with os.fdopen(open_file(source), "rb", buffering=0) as file:
        _write_draft(draft, iter(lambda: file.read(_CHUNK_BYTES), b""), pulse)
    _appear_or_go(draft, target)


def write_new(target: Path, data: bytes, draft_name: str, *, mode: int = 0o644) -> None:
    """Write a new file, whole and at once, if its name is free.

    Args:
        target: The file.
        data: What it is to hold.
        draft_name: Its name until it is whole; the same again after a crash, so that no draft is left.
        mode: Of the file, but for what the umask takes away.

    Raises:
        FileExistsError: The name is taken.
        OSError: It cannot be written.
    """
    draft = target.parent / draft_name
    _write_draft(draft, iter((data,)), lambda: None, mode=mode)
    _appear_or_go(draft, target)


def replace_file(target: Path, data: bytes) -> None:
    """Write a file of ours, whole and at once; one of this name is replaced.

    Raises:
        OSError: It cannot be written.
    """
    draft = target.parent / f".{target.name}.part"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)
    draft.rename(target)


def _write_draft(draft: Path, pieces: Iterable[bytes], pulse: Pulse, *, mode: int = 0o644) -> None:
    # A draft that an earlier attempt left is ours; whatever else has the name must not be written through.
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            for piece in pieces:
                write_all(fd, piece)
                pulse()
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _appear_or_go(draft: Path, target: Path) -> None:
    try:
        appear(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def appear(draft: Path, target: Path) -> None:
    """Give a draft its name if that is free; if it is not, the draft stays.

    Raises:
        FileExistsError: It is not.
        OSError: It cannot be done.
    """
    try:
        os.link(draft, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        # No hard links here (FAT and the like): the look before the rename is the best there is.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it is there already", str(target)) from error
        draft.rename(target)
        return
    draft.unlink()


def require_room(folder: Path, needed_bytes: int) -> None:
    """See to it, before any work, that a folder can be written to and has room.

    Args:
        folder: It exists.
        needed_bytes: How much is to be written.

    Raises:
        JobFailed: Not now; worth another attempt later.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise JobFailed(
            f"{str(folder)!r} may not be written to.", remedy="Give the worker's user write access to it."
        )
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < needed_bytes:
        raise JobFailed(
            f"the disk of {str(folder)!r} has {free_bytes} bytes left, {needed_bytes} are needed.",
            remedy="Free disk space; the job is tried again.",
        )


def explain(error: OSError, doing: str) -> JobFailed:
    """Turn an error of the system into the job's: final if it is about the file itself, else worth a retry.

    Args:
        error: What the system said.
        doing: What was being done, as in "FILE cannot be read".
    """
    said = f"{doing}: {error.strerror or error}."
    if isinstance(error, NotAFile) or error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR):
        return JobRefused(said, remedy="Drop it again under another name, or as a plain file.")
    return JobFailed(said, remedy="Correct the mode of the folders, or free disk space.")


def write_all(fd: int, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part without an error, and refuses only what comes then.

    Raises:
        OSError: It was not taken, or not all of it.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_durably(target: Path, data: bytes) -> None:
    """Write or replace a private file, mode 0600; it is on disk when this returns.

    Nobody else may write it at the same time. What a kill leaves, ``NAME.tmp``, the next one replaces.

    Args:
        target: The file; its folder is there.
        data: What it is to hold.

    Raises:
        OSError: It cannot be written; what was there before still is, unless only the folder was not forced
            to disk.
    """
    draft = target.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Force to disk which names a folder holds.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
