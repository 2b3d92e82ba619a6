"""Wakes the station when something happens in the drop folder, where the file system tells so.

Network file systems tell only of what this machine does itself. So events are used where the file system is
a local one and a probe file made them come; otherwise the folder is looked through every few seconds.
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

#: Their servers tell nobody of what other machines do (``mount(8)``, the list of the kernel's file systems).
_REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "glusterfs", "gfs2", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"smb", "smb2", "smb3", "smbfs", "sshfs", "virtiofs", "vboxsf", "drvfs", "davfs", "beegfs", "orangefs"}
)
#: So long an event may take to be told; only the first look for it waits.
PROBE_S = 3.0
#: Changes are collected for so long, so that a thousand files are one sign.
_COLLECT_MS = 400
_STEP_MS = 80
_LISTEN_MS = 5_000
#: What ``watchfiles`` fails with when a name is no UTF-8.
_UNDECODABLE = "Unable to decode path"

log = get_logger(__name__)

Mode = Literal["events", "polling"]


def file_system_of(path: Path, mountinfo: str | None = None) -> str:
    """Give the type of the file system that a path is on; empty where the kernel does not say.

    Args:
        path: Anything that exists.
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
        # Of two mounts on one point the later one counts.
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def is_remote(kind: str) -> bool:
    """Tell whether a file system of this type changes without telling us."""
    return kind in _REMOTE or (kind.startswith("fuse.") and "overlayfs" not in kind)


class Watch:
    """Sets an event when something changes in one of the folders.

    Args:
        root: The drop folder.
        wanted: ``auto``, ``events`` or ``polling``.
        wake: What is set.

    Attributes:
        mode: ``events`` once they are known to come, ``polling`` before and otherwise.
    """

    def __init__(self, root: Path, wanted: str, wake: threading.Event) -> None:
        self._root = root
        self._wake = wake
        self._ended = threading.Event()
        self._renew = threading.Event()
        self._lock = threading.Lock()
        self._folders = [str(root)]
        # One name for all: what a killed station leaves is the next one's.
        self._probe = root / ".3ox-probe"
        self._threads: list[threading.Thread] = []
        self.mode: Mode = "polling"
        kind = file_system_of(root)
        self._listens = wanted != "polling" and (wanted == "events" or not is_remote(kind))
        self._trusts = wanted == "events"
        if not self._listens:
            log.info("station.polling", file_system=kind, wanted=wanted)

    def start(self) -> None:
        """Begin to listen, if that is of use."""
        if not self._listens:
            return
        self._threads.append(start_duty("watch", self._listen, ended=self._ended.is_set))
        self._threads.append(start_duty("probe", self._ask, ended=self._ended.is_set))

    def stop(self) -> None:
        """Stop to listen."""
        self._ended.set()
        self._renew.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._probe.unlink(missing_ok=True)

    def use(self, folders: list[str]) -> None:
        """Say which folders there are now; each is listened to by itself, so that the inner rooms are not."""
        with self._lock:
            if set(folders) == set(self._folders):
                return
            self._folders = folders
        self._renew.set()

    def _listen(self) -> None:
        from watchfiles import watch

        # It tells the log of every change, and the log may lie below the folder.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        while not self._ended.is_set():
            self._renew.clear()
            with self._lock:
                folders = [folder for folder in self._folders if Path(folder).is_dir()]
            if not folders:
                self._ended.wait(1.0)
                continue
            # Whatever came into a folder before it was listened to is found by a look after it.
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
                        self._heard()
                    self._wake.set()
            except FileNotFoundError:
                continue
            except RuntimeError as error:
                # It cannot tell of a name that is no UTF-8; the next round sees that there is one.
                if _UNDECODABLE not in str(error):
                    raise

    def _heard(self) -> None:
        self.mode = "events"
        log.info("station.events", folder=str(self._root))
        self._wake.set()

    def _ask(self) -> None:
        """Touch a probe file until an event tells of it, or it is plain that none will."""
        if self._trusts:
            self._heard()
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
