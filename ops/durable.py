"""Files of ours that survive a power cut: written whole, forced to disk, and only then given their name."""

from __future__ import annotations

import os
from pathlib import Path


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
