"""Files on a disk that fills up, and entries that keep their order when the clock is set back."""

from __future__ import annotations

import contextlib
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.errors import SpoolFull
from ops.files import replace_file, write_durably
from ops.spool import Spool

_ROOM_BYTES = 5_000
_LARGE = b"x" * 4 * _ROOM_BYTES


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond ``_ROOM_BYTES``: the first write takes a part, and no error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_private_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """A disk that takes only a part leaves the old content, and no draft."""
    file = tmp_path / "secret.json"
    write_durably(file, b"old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_durably(file, _LARGE)
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["secret.json"]
    (tmp_path / "secret.tmp").write_bytes(b"left by a kill")
    write_durably(file, _LARGE)
    assert file.read_bytes() == _LARGE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names(tmp_path) == ["secret.json"]


def test_a_journal_is_never_cut_short(tmp_path: Path) -> None:
    """What replaces a file is all of it, or an error."""
    file = tmp_path / "journal"
    replace_file(file, b"old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        replace_file(file, _LARGE)
    assert file.read_bytes() == b"old"


def test_the_spool_keeps_nothing_of_what_it_refuses(tmp_path: Path) -> None:
    """The sender submits a refused job again, so the refused one must not be stored."""
    spool = Spool(tmp_path / "spool", max_bytes=1_000_000)
    spool.add("first", b"1")
    with full_disk(), pytest.raises(SpoolFull, match="cannot be written"):
        spool.add("large", _LARGE)
    assert [entry.read_bytes() for entry in spool.entries()] == [b"1"]
    assert len(names(spool.folder)) == 1


def test_the_spool_keeps_its_order_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are taken in the order in which they were added, whatever the wall clock does in between."""
    spool = Spool(tmp_path, max_bytes=1_000_000)
    for number, set_back_s in enumerate((0, 3600, 60)):
        now_ns = time.time_ns() - set_back_s * 1_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns: now_ns)
        spool.add(f"job{number}", str(number).encode())
        monkeypatch.undo()
    assert [entry.read_bytes() for entry in spool.entries()] == [b"0", b"1", b"2"]
