"""The file that a task is passed in; it may be longer than an argument."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def task_file(folder: Path, job_id: str, task: str) -> Iterator[Path]:
    """Write a task into a private file for the time of a block.

    The file is locked, so that those that a killed worker has left are recognized: the next task of this
    workspace removes them.

    Args:
        folder: Where the files are.
        job_id: Id of the task, the name of its file.
        task: Its content.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_unlocked(folder)
    path = folder / job_id
    fd = _create_locked(path)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(task.encode("utf-8", "replace"))
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _create_locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        if os.fstat(fd).st_nlink > 0:
            return fd
        os.close(fd)  # another process has removed it before it was locked


def _remove_unlocked(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
