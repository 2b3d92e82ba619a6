"""A worker's vitals: a small file in shared memory that the host's watchdog can read at any time.

There is one file per worker process, mapped into its memory: writing to it is an assignment, not a system
call, and what was written remains after a SIGKILL. The watchdog reads which jobs have started, when, and how
long they may run; when a consumer last polled; when the store last answered. All times are nanoseconds of
``CLOCK_MONOTONIC``, which all processes of a host share.
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

#: A job id has 64 characters at most; a delivery's id adds a dash and a number.
_ID_BYTES = 80
_HEADER = struct.Struct("<4sIQQQQQQQ")  # magic, rows, pid, start time, poll, beat, store, stopping, inode
_ROW = struct.Struct(f"<{_ID_BYTES}sQQ")  # job id, started, allowed
_ALLOWED = _ID_BYTES + 8  # its offset in a row
_FOREVER_NS = 2**63
#: Changes with the layout of the file, so that a watchdog of one version does not misread a worker of
#: another.
_MAGIC = b"3ox2"
_POLL, _BEAT, _STORE, _STOPPING = 24, 32, 40, 48  # their offsets in the header


class RunningJob(Struct, frozen=True):
    """A job that a worker has started and not yet settled.

    Attributes:
        job_id: Id of the job.
        started_ns: When it started.
        allowed_ns: How long it may run.
    """

    job_id: str
    started_ns: int
    allowed_ns: int


class VitalsReading(Struct, frozen=True):
    """What a worker's file says.

    Attributes:
        pid: Of the worker process.
        start_time: Of that process, as ``ops.processes.process_start_time`` returns it.
        poll_ns: When a consumer last polled for work.
        beat_ns: When the heartbeat thread last ran, whether or not the store answered.
        store_ns: When the store last answered.
        stopping: The worker is being stopped.
        jobs: Jobs that it runs.
    """

    pid: int
    start_time: int
    poll_ns: int
    beat_ns: int
    store_ns: int
    stopping: bool
    jobs: list[RunningJob]


class Vitals:
    """The worker's side.

    Args:
        path: The file; must not exist.
        rows: Number of jobs that fit.
        start_time: Of this process.

    Raises:
        OSError: For instance, the disk is full. No file is left behind.
    """

    def __init__(self, path: Path, *, rows: int, start_time: int) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        size_bytes = _HEADER.size + rows * _ROW.size
        # The watchdog may read at any moment and deletes incomplete files: the file appears complete.
        draft = path.with_name(f".{path.name}")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Written, not truncated to size: on a full disk, touching a hole would kill the process (SIGBUS).
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
        """Record that a consumer polls for work."""
        self._stamp(_POLL)

    def beat(self) -> None:
        """Record that the heartbeat thread runs."""
        self._stamp(_BEAT)

    def store_answered(self) -> None:
        """Record that the store has answered."""
        self._stamp(_STORE)

    def stopping(self) -> None:
        """Record that the worker is being stopped."""
        struct.pack_into("<Q", self._memory, _STOPPING, 1)

    def started(self, job_id: str, delivery: str, allowed_s: float) -> None:
        """Record that a job has started.

        Args:
            job_id: Id of the job.
            delivery: Its delivery token. This worker may get the same job again before it has recorded that
                the end of the previous attempt was committed; each delivery has a row of its own.
            allowed_s: How long it may run.
        """
        with self._lock:
            if (job_id, delivery) in self._taken or not self._free:
                return
            row = self._taken[(job_id, delivery)] = self._free.pop()
        offset = _HEADER.size + row * _ROW.size
        _ROW.pack_into(
            self._memory, offset, job_id.encode(), time.monotonic_ns(), int(allowed_s * 1_000_000_000)
        )

    def ended(self, job_id: str, delivery: str) -> None:
        """Record that a job's actor has returned: it is never overdue, however long its commit takes."""
        with self._lock:
            row = self._taken.get((job_id, delivery))
            if row is not None:
                offset = _HEADER.size + row * _ROW.size
                struct.pack_into("<Q", self._memory, offset + _ALLOWED, _FOREVER_NS)

    def settled(self, job_id: str, delivery: str) -> None:
        """Record that a job's end has been committed."""
        with self._lock:
            row = self._taken.pop((job_id, delivery), None)
            if row is None:
                return
            self._memory[_HEADER.size + row * _ROW.size] = 0
            self._free.append(row)

    def remove(self) -> None:
        """Delete the file: this worker has shut down in order."""
        self.path.unlink(missing_ok=True)


def read_vitals(path: Path) -> VitalsReading:
    """Read a worker's file.

    Raises:
        FileNotFoundError: The file does not exist.
        StartFailed: It is not a worker's file of this version, is incomplete, or is a copy.
    """
    with path.open("rb") as file:
        inode, data = os.fstat(file.fileno()).st_ino, file.read()
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise StartFailed(f"{path} is not a worker's file.", remedy="Delete it.")
    if len(data) < _HEADER.size + _HEADER.unpack_from(data)[1] * _ROW.size:
        raise StartFailed(f"{path} is cut short.", remedy="Delete it.")
    _, rows, pid, start_time, poll_ns, beat_ns, store_ns, stopping, written_as = _HEADER.unpack_from(data)
    if written_as != inode:
        # From a copied workspace: nothing that its worker does shows in this file.
        raise StartFailed(f"{path} is a copy.", remedy="Delete it.")
    jobs = []
    for row in range(rows):
        job_id, started_ns, allowed_ns = _ROW.unpack_from(data, _HEADER.size + row * _ROW.size)
        if job_id[0]:
            jobs.append(RunningJob(job_id.rstrip(b"\0").decode(errors="replace"), started_ns, allowed_ns))
    return VitalsReading(pid, start_time, poll_ns, beat_ns, store_ns, bool(stopping), jobs)


class WatchdogPaths(Struct, frozen=True):
    """Paths of the watchdog of one workspace and one store.

    Attributes:
        socket: On which it listens.
        lock: Held by the one watchdog that runs.
        vitals_dir: Directory of the workers' files.
    """

    socket: Path
    lock: Path
    vitals_dir: Path


def watchdog_paths(loaded: LoadedSettings) -> WatchdogPaths:
    """Return the paths for these settings: workers of another store have a watchdog of their own."""
    what = f"{loaded.store_url} {loaded.settings.key_prefix}"
    mark = hashlib.sha256(what.encode()).hexdigest()[:4]
    run_dir = loaded.workspace.run_dir
    return WatchdogPaths(
        # Next to the store's socket, in a directory chosen to keep the path within the limit of the system.
        socket=loaded.workspace.store_socket.with_name(f"w-{mark}.sock"),
        # Named as in version 0.1.0, whose watchdog may still run: there must be one per host.
        lock=run_dir / f"warden-{mark}.lock",
        vitals_dir=run_dir / f"vitals-{mark}",
    )
