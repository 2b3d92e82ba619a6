"""Wake the station when the drop folder changes, where the file system reports that.

Network file systems report only changes made by this host. So events are used if the file system is local
and a change of a probe file was reported; otherwise the folder is scanned at an interval.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Literal

from ops.logs import get_logger
from ops.threads import start_duty

#: File systems that do not report changes made by other hosts (``mount(8)``).
_REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "glusterfs", "gfs2", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"smb", "smb2", "smb3", "smbfs", "sshfs", "virtiofs", "vboxsf", "drvfs", "davfs", "beegfs", "orangefs"}
)
#: Longest wait for the event of the probe file.
PROBE_S = 3.0
#: Folders that are watched at most: each takes one of the user's inotify watches.
WATCHED_MAX = 4_000
#: Changes within this time wake the station once.
_COLLECT_MS = 400
_STEP_MS = 80
_LISTEN_MS = 5_000
#: Error text of ``watchfiles`` for a name that is not UTF-8.
_UNDECODABLE = "Unable to decode path"

log = get_logger(__name__)

Mode = Literal["events", "polling"]


def file_system_of(path: Path, mountinfo: str | None = None) -> str:
    """Return the type of the file system of a path; empty if the kernel does not tell.

    Args:
        path: An existing path.
        mountinfo: Content of ``/proc/self/mountinfo`` (``proc_pid_mountinfo(5)``).
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) <= 4 or not right:  # noqa: PLR2004 (the mount point is the fifth field)
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one hides the other.
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def is_remote(kind: str) -> bool:
    """Return whether a file system of this type can change without an event on this host."""
    return kind in _REMOTE or (kind.startswith("fuse.") and "overlayfs" not in kind)


class FolderWatcher:
    """Sets an event when one of the folders changes.

    Args:
        root: The drop folder.
        wanted: ``auto``, ``events`` or ``polling``.
        wake: The event to set.

    Attributes:
        mode: ``events`` once the file system is known to report changes, else ``polling``.
    """

    def __init__(self, root: Path, wanted: str, wake: threading.Event) -> None:
        self._root = root
        self._wake = wake
        self._ended = threading.Event()
        self._renew = threading.Event()
        self._lock = threading.Lock()
        self._folders = [str(root)]
        # The same name for all stations: the next one removes what a killed one left.
        self._probe = root / ".3ox-probe"
        self._threads: list[threading.Thread] = []
        self.mode: Mode = "polling"
        kind = file_system_of(root)
        self._listens = wanted != "polling" and (wanted == "events" or not is_remote(kind))
        self._trusts = wanted == "events"
        if not self._listens:
            log.info("station.polling", file_system=kind, wanted=wanted)

    def start(self) -> None:
        """Start to watch, unless the mode is polling."""
        if not self._listens:
            return
        self._threads.append(start_duty("folder-watch", self._listen, ended=self._ended.is_set))
        self._threads.append(start_duty("folder-probe", self._probe_events, ended=self._ended.is_set))

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._renew.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._probe.unlink(missing_ok=True)

    def use(self, folders: list[str]) -> None:
        """Set the folders to watch, one by one: not the bridge's own folders inside them.

        Args:
            folders: The drop folder first. Of more than ``WATCHED_MAX`` the others are only scanned.
        """
        folders = folders[:WATCHED_MAX]
        with self._lock:
            if set(folders) == set(self._folders):
                return
            self._folders = folders
        self._renew.set()

    def _listen(self) -> None:
        from watchfiles import watch

        # It logs every change, and the log file may be in a watched folder.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        while not self._ended.is_set():
            self._renew.clear()
            with self._lock:
                folders = [folder for folder in self._folders if Path(folder).is_dir()]
            if not folders:
                self._ended.wait(1.0)
                continue
            # A scan finds what was added to a folder before it was watched.
            self._wake.set()
            try:
                for changes in watch(
                    *folders,
                    watch_filter=None,
                    debounce=_COLLECT_MS,
                    step=_STEP_MS,
                    rust_timeout=_LISTEN_MS,
                    stop_event=self._renew,
                    recursive=False,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    if self.mode == "polling" and any(path == str(self._probe) for _, path in changes):
                        self._use_events()
                    self._wake.set()
            except FileNotFoundError:
                continue
            except RuntimeError as error:
                # It cannot report a name that is not UTF-8; the next scan finds the file.
                if _UNDECODABLE not in str(error):
                    raise

    def _use_events(self) -> None:
        self.mode = "events"
        log.info("station.events", folder=str(self._root))
        self._wake.set()

    def _probe_events(self) -> None:
        """Change a probe file until that is reported, for three seconds at most."""
        if self._trusts:
            self._use_events()
            return
        deadline_s = time.monotonic() + PROBE_S
        try:
            while self.mode == "polling" and time.monotonic() < deadline_s and not self._ended.is_set():
                self._probe.write_bytes(str(time.monotonic_ns()).encode())
                self._ended.wait(0.25)
        except OSError as error:
            log.warning("station.probe_failed", reason=str(error))
        finally:
            with contextlib.suppress(OSError):
                self._probe.unlink(missing_ok=True)
        if self.mode == "polling":
            log.warning("station.polling", file_system=file_system_of(self._root), wanted="auto")
