"""Locks end with their holder, and a stopped holder does not block the others for ever."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from ops.lockfile import await_lock, take_lock, try_lock
from ops.logfile import LogFile


def test_one_at_a_time(tmp_path: Path) -> None:
    """Who comes second has to wait, and says so after the time it was given."""
    path = tmp_path / "lock"
    held = take_lock(path, within_s=1.0)
    assert try_lock(path) is None
    with pytest.raises(TimeoutError, match="another process holds the lock") as caught:
        take_lock(path, within_s=0.05)
    assert (caught.value.errno, caught.value.filename) == (errno.ETIMEDOUT, str(path))
    os.close(held)
    os.close(take_lock(path, within_s=1.0))


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_waiter_gets_the_lock_of_the_file_that_is_there(tmp_path: Path, is_removed: bool) -> None:
    """Also if the holder removes the file, as it may: a lock on what has no name is none."""
    path = tmp_path / "lock"
    held = take_lock(path, within_s=1.0)
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(await_lock(path)))
    waiting.start()
    if is_removed:
        path.unlink()
    os.close(held)
    waiting.join(10.0)
    (fd,) = got
    assert os.path.samestat(path.stat(), os.fstat(fd))
    assert try_lock(path) is None
    os.close(fd)


def test_a_rotation_that_stands_still_stops_nobody(tmp_path: Path) -> None:
    """A process paused in a rotation holds the lock: the others go on logging, and rotate later."""
    path = tmp_path / "log"
    log = LogFile(path, max_bytes=1_000, keep=2, check_every_s=0.0)
    paused = take_lock(path, within_s=1.0)
    for _ in range(3):
        log.write(b"x" * 999)
    assert path.stat().st_size == 3_000
    os.close(paused)
    log.write(b"last")
    log.close()
    assert (path.read_bytes(), (tmp_path / "log.1").stat().st_size) == (b"last\n", 3_000)
