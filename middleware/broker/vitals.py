"""A worker's signs of life in shared memory, readable when the worker itself can say nothing.

One small file per worker process, mapped into its memory: writing to it is an assignment, not a system call,
and what was written stands there after a SIGKILL. The host's warden reads it: which jobs have started, since
when and how long they may run, when the consumer last went round, when the store last answered. All times are
nanoseconds of ``CLOCK_MONOTONIC``, which all processes of a host share.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
import time
from pathlib import Path

from msgspec import Struct

from ops.errors import StartFailed
from ops.files import write_all
from ops.settings.load import LoadedSettings

#: A job's id has 64 characters at most, of which a delivery's is made with a dash and a number.
_ID_BYTES = 80
_HEADER = struct.Struct("<4sIQQQQQQQ")  # magic, rows, pid, start time, round, beat, store, stopping, inode
_ROW = struct.Struct(f"<{_ID_BYTES}sQQ")  # job id, started, allowed
_ALLOWED = _ID_BYTES + 8  # where it stands in a row
_FOR_EVER_NS = 2**63
#: Another form of the file has another magic: a warden of one version does not misread a worker of another.
_MAGIC = b"3ox2"
_ROUND, _BEAT, _STORE, _STOPPING = 24, 32, 40, 48  # where they stand in the header


class RunningJob(Struct, frozen=True):
    """A job that a worker has started and not yet settled."""

    job_id: str
    started_ns: int
    allowed_ns: int


class Signs(Struct, frozen=True):
    """What a worker's file says.

    Attributes:
        pid: Of the worker process.
        start_time: Of that process, as ``ops.processes.process_start_time`` gives it.
        round_ns: When a consumer last went round its loop.
        beat_ns: When the heartbeat thread last ran, store or no store.
        store_ns: When the store last answered.
        stopping: The worker is being stopped.
        jobs: What it runs.
    """

    pid: int
    start_time: int
    round_ns: int
    beat_ns: int
    store_ns: int
    stopping: bool
    jobs: list[RunningJob]


class Vitals:
    """The worker's side.

    Args:
        path: The file; made anew.
        rows: How many jobs it runs at a time.
        start_time: Of this process.

    Raises:
        OSError: The disk is full, for instance; nothing of it is left then.
    """

    def __init__(self, path: Path, *, rows: int, start_time: int) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        size_bytes = _HEADER.size + rows * _ROW.size
        # The warden may look at any moment, and takes what is unfinished for rubbish: whole or not there.
        draft = path.with_name(f".{path.name}")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Not only made so long: on a full disk the first touch of a hole would kill the process.
            write_all(fd, bytes(size_bytes))
            self._memory = mmap.mmap(fd, size_bytes)
            inode = os.fstat(fd).st_ino
        except OSError:
            draft.unlink()
            raise
        finally:
            os.close(fd)
        now_ns = time.monotonic_ns()
        self._free = list(range(rows))
        self._taken: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        _HEADER.pack_into(
            self._memory, 0, _MAGIC, rows, os.getpid(), start_time, now_ns, now_ns, now_ns, 0, inode
        )
        draft.rename(path)

    def _stamp(self, offset: int) -> None:
        struct.pack_into("<Q", self._memory, offset, time.monotonic_ns())

    def record_poll(self) -> None:
        """A consumer has gone round its loop."""
        self._stamp(_ROUND)

    def beat(self) -> None:
        """The heartbeat thread has run."""
        self._stamp(_BEAT)

    def store_answered(self) -> None:
        """The store has answered."""
        self._stamp(_STORE)

    def stopping(self) -> None:
        """The worker has been told to stop."""
        struct.pack_into("<Q", self._memory, _STOPPING, 1)

    def started(self, job_id: str, delivery: str, allowed_s: float) -> None:
        """A job has started.

        Args:
            job_id: Which.
            delivery: Of it. The same job may be given to this worker again before the worker has noted that
                the end of the attempt before was committed: each has a row of its own.
            allowed_s: How long it may run, in seconds.
        """
        with self._lock:
            if (job_id, delivery) in self._taken or not self._free:
                return
            row = self._taken[(job_id, delivery)] = self._free.pop()
        place = _HEADER.size + row * _ROW.size
        _ROW.pack_into(
            self._memory, place, job_id.encode(), time.monotonic_ns(), int(allowed_s * 1_000_000_000)
        )

    def ended(self, job_id: str, delivery: str) -> None:
        """A job's actor has returned: from now on it is overdue no more, however long its commit takes."""
        with self._lock:
            row = self._taken.get((job_id, delivery))
            if row is not None:
                place = _HEADER.size + row * _ROW.size
                struct.pack_into("<Q", self._memory, place + _ALLOWED, _FOR_EVER_NS)

    def settled(self, job_id: str, delivery: str) -> None:
        """A job's end has been committed."""
        with self._lock:
            row = self._taken.pop((job_id, delivery), None)
            if row is None:
                return
            self._memory[_HEADER.size + row * _ROW.size] = 0
            self._free.append(row)

    def remove(self) -> None:
        """Delete the file: this worker has ended in good order."""
        self.path.unlink(missing_ok=True)


def read_signs(path: Path) -> Signs:
    """Read a worker's file.

    Raises:
        FileNotFoundError: It is gone.
        StartFailed: It is none of ours, or was never finished.
    """
    with path.open("rb") as file:
        inode, data = os.fstat(file.fileno()).st_ino, file.read()
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise StartFailed(f"{path} is no worker's file.", remedy="Delete it.")
    if len(data) < _HEADER.size + _HEADER.unpack_from(data)[1] * _ROW.size:
        raise StartFailed(f"{path} is cut short.", remedy="Delete it.")
    _, rows, pid, start_time, round_ns, beat_ns, store_ns, stopping, written_as = _HEADER.unpack_from(data)
    if written_as != inode:
        # Of a copied workspace: its worker lives, but not here, and nothing it does shows in this file.
        raise StartFailed(f"{path} is a copy.", remedy="Delete it.")
    jobs = []
    for row in range(rows):
        job_id, started_ns, allowed_ns = _ROW.unpack_from(data, _HEADER.size + row * _ROW.size)
        if job_id[0]:
            jobs.append(RunningJob(job_id.rstrip(b"\0").decode(errors="replace"), started_ns, allowed_ns))
    return Signs(pid, start_time, round_ns, beat_ns, store_ns, bool(stopping), jobs)


class WardPlace(Struct, frozen=True):
    """Paths that belong to one workspace and one store.

    Attributes:
        socket: On which the warden listens.
        lock: Held by the one warden there is.
        vitals_dir: Of the workers' files.
    """

    socket: Path
    lock: Path
    vitals_dir: Path


def ward_place(loaded: LoadedSettings) -> WardPlace:
    """Give the paths for these settings: workers of another store have a warden of their own."""
    what = f"{loaded.store_url} {loaded.settings.key_prefix}"
    mark = hashlib.sha256(what.encode()).hexdigest()[:4]
    run_dir = loaded.workspace.run_dir
    return WardPlace(
        # As long as the store's socket, whose directory was chosen so that the path is not too long.
        socket=loaded.workspace.store_socket.with_name(f"w-{mark}.sock"),
        lock=run_dir / f"warden-{mark}.lock",
        vitals_dir=run_dir / f"vitals-{mark}",
    )
