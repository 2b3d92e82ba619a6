"""File operations: read regular files safely, write files atomically, never overwrite a file of others.

Reading        open_file, digest_of, has_content, is_link_to
New files      link_or_copy, write_new, publish_draft     the target must not exist
Own files      replace_file, write_durably          the target is replaced
Disk and errors write_all, sync_folder, require_free_space, as_job_error
"""

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
#: Errors of ``link`` on file systems, or between file systems, without hard links.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})

#: Called between the pieces of a long operation; may raise to stop it.
Pulse = Callable[[], None]


class NotAFile(OSError):
    """The path is a link, pipe, device or directory, not a regular file."""


def open_file(path: Path) -> int:
    """Open a regular file for reading; never follows a link and never blocks on a pipe.

    Raises:
        NotAFile: The path is not a regular file.
        OSError: It cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotAFile(error.errno, "not a regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAFile(errno.EINVAL, "not a regular file", str(path))
    return fd


def digest_of(path: Path, pulse: Pulse) -> tuple[str, int]:
    """Return SHA-256 and size in bytes of a file's content.

    Args:
        path: The file.
        pulse: Called after each piece; may raise to stop.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    total, size_bytes = hashlib.sha256(), 0
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        while piece := file.read(_CHUNK_BYTES):
            total.update(piece)
            size_bytes += len(piece)
            pulse()
    return total.hexdigest(), size_bytes


def has_content(path: Path, sha256: str, size_bytes: int, pulse: Pulse) -> bool:
    """Return whether a path is a regular file with this content."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            return False
        return digest_of(path, pulse)[0] == sha256
    except FileNotFoundError:
        return False


def is_link_to(path: Path, target: str) -> bool:
    """Return whether a path is a symbolic link with this text."""
    try:
        return os.readlink(path) == target  # noqa: PTH115 (the text as it is, without normalization)
    except OSError:
        return False


def link_or_copy(source: Path, target: Path, draft_name: str, pulse: Pulse) -> None:
    """Make a file available under a second name, atomically, if that name is free.

    Uses a hard link where possible: it costs nothing, whatever the size, and cannot be half done. Otherwise
    the file is copied to a draft, synced to disk and published. A file that has another name already is
    copied, so that a change under that name does not change this one.

    Args:
        source: The file.
        target: Its new name, in an existing folder.
        draft_name: Name of the draft; the same after a crash, so that no draft is left behind.
        pulse: Called after each piece; may raise to stop.

    Raises:
        FileExistsError: The target exists.
        OSError: It cannot be written.
    """
    if source.lstat().st_nlink == 1:
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
    _publish_or_remove(draft, target)


def write_new(target: Path, data: bytes, draft_name: str, *, mode: int = 0o644) -> None:
    """Write a new file atomically, if its name is free.

    Args:
        target: The file.
        data: Its content.
        draft_name: Name of the draft; the same after a crash, so that no draft is left behind.
        mode: Permissions of the file, before the umask.

    Raises:
        FileExistsError: The target exists.
        OSError: It cannot be written.
    """
    draft = target.parent / draft_name
    _write_draft(draft, iter((data,)), lambda: None, mode=mode)
    _publish_or_remove(draft, target)


def publish_draft(draft: Path, target: Path) -> None:
    """Rename a draft to its final name if that is free; otherwise the draft stays.

    Raises:
        FileExistsError: The target exists.
        OSError: The rename failed.
    """
    try:
        os.link(draft, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        # Without hard links (FAT), a check before the rename is the best there is.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "the file exists", str(target)) from error
        draft.rename(target)
        return
    draft.unlink()


def _write_draft(draft: Path, pieces: Iterable[bytes], pulse: Pulse, *, mode: int = 0o644) -> None:
    # A draft of an earlier attempt is removed; O_EXCL refuses anything else, such as a link.
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


def _publish_or_remove(draft: Path, target: Path) -> None:
    try:
        publish_draft(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def replace_file(target: Path, data: bytes) -> None:
    """Write or replace a file atomically; it is not synced to disk.

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


def write_durably(target: Path, data: bytes) -> None:
    """Write or replace a private file (mode 0600) atomically; it is on disk when this returns.

    Only one process may write it at a time. A draft ``NAME.tmp`` left by a crash is replaced by the next
    call.

    Args:
        target: The file, in an existing folder.
        data: Its content.

    Raises:
        OSError: It cannot be written. The previous content is still there, unless only syncing the folder
            failed.
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


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data: on a full disk, ``os.write`` writes a part and fails at the next call only.

    Raises:
        OSError: Not all of it was written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Sync the directory entries of a folder to disk.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_free_space(folder: Path, needed_bytes: int) -> None:
    """Return if a folder is writable and its disk has enough free space.

    Args:
        folder: An existing folder.
        needed_bytes: Bytes to be written.

    Raises:
        JobFailed: Not now; worth a retry.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise JobFailed(
            f"The folder {str(folder)!r} is not writable.",
            remedy="Grant the worker's user write access to it.",
        )
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < needed_bytes:
        raise JobFailed(
            f"The disk of {str(folder)!r} has {free_bytes} bytes left, {needed_bytes} are needed.",
            remedy="Free disk space; the job is retried.",
        )


def as_job_error(error: OSError, message: str) -> JobFailed:
    """Return the job's error for an error of the system: final if the file itself is at fault, else retried.

    Args:
        error: The error of the system.
        message: What failed, such as "'a.pdf' cannot be read".
    """
    text = f"{message}: {error.strerror or error}."
    if isinstance(error, NotAFile) or error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR):
        return JobRefused(text, remedy="Drop it again as a regular file, or under another name.")
    return JobFailed(text, remedy="Check the permissions of the folders, or free disk space.")
