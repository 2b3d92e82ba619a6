"""The station's loop.

    scanner -> stability -> claiming -> submission -> completion
    find       complete?    rename      read, submit   remove, or move to failed/

Events of the file system only wake the loop; files are always found by a scan. So a lost event, a folder
that was moved in, and a file that was dropped while no station ran are all handled the same way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from ingress.core.daemon import Daemon
from ingress.core.file_claims import Claim
from ingress.core.file_jobs import ContentIndex
from ingress.core.spooled_jobs import job_id_of
from ingress.station.claiming import Claimer, refuse
from ingress.station.claims import Claims
from ingress.station.cleanup import EmptyFolders, remove_old_days, remove_old_drafts
from ingress.station.completion import ClaimCompletion
from ingress.station.left_entries import LeftEntries
from ingress.station.retry import wait_s
from ingress.station.scanner import Scanner, foreign_entries
from ingress.station.stability import StabilityTracker, ignore_lease_breaks
from ingress.station.submission import BATCH, ClaimSubmitter
from ingress.station.watch import FolderWatcher
from ops.errors import JobFailed, SettingsError, StoreUnreachable
from ops.files import require_free_space
from ops.logs import get_logger

#: Longest turn of the loop, so that the daemon's heartbeat goes on.
_TURN_S = 0.5
#: A claim of another station is adopted when it has been without a job for this long.
_ORPHAN_S = 15.0
#: Interval of checks of the claims while the store is unavailable.
_UNAVAILABLE_CHECK_S = 1.0
_CLEANUP_INTERVAL_S = 3600.0

log = get_logger(__name__)


def serve(daemon: Daemon) -> None:
    """Serve the drop folder until the daemon stops."""
    ignore_lease_breaks()
    station = Station(daemon)
    station.open()
    try:
        daemon.ready()
        while not daemon.stopping.is_set():
            daemon.pulse()
            station.wait(min(_TURN_S, station.turn()))
    finally:
        station.close()


class Station:
    """Runs all steps from a dropped file to its finished job.

    Args:
        daemon: The process that it runs in.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._workspace = daemon.loaded.workspace
        self._settings = daemon.loaded.settings.station
        self._wake = threading.Event()
        self._claims = Claims(self._workspace)
        self._watcher = FolderWatcher(self._workspace.inbox, self._settings.watch, self._wake)
        self._scanner = Scanner(self._workspace.inbox, self._settings)
        self._left = LeftEntries()
        self._empty_folders = EmptyFolders(self._settings, self._workspace.run_dir / "station.folders")
        self._stability = StabilityTracker(
            settle_s=self._settings.settle_s, note_wait_s=self._settings.note_wait_s
        )
        self._claimer = Claimer(self._claims, self._settings.tries)
        self._completion = ClaimCompletion(daemon.bridge, self._claims)
        self._submitter = ClaimSubmitter(
            daemon.acceptance,
            self._claims,
            self._settings,
            ContentIndex(daemon.acceptance.quick.reader, daemon.loaded.settings),
            pulse=daemon.pulse,
        )
        self._scan_due_s = 0.0
        self._check_due_s = 0.0
        self._cleanup_due_s = 0.0
        self._claims_checked = False
        self._host_failures = 0
        self._host_problem = ""
        self._submitted = 0

    def open(self) -> None:
        """Start to watch the folder and to follow jobs."""
        self._claims.root.mkdir(parents=True, exist_ok=True)
        self._completion.start()
        self._watcher.start()

    def close(self) -> None:
        """Stop; claims without a job are adopted at the next start."""
        self._watcher.stop()
        self._completion.stop()

    def wait(self, seconds: float) -> None:
        """Wait for a change of the folder, for a limited time."""
        if self._wake.wait(seconds):
            self._wake.clear()
            self._scan_due_s = 0.0

    def turn(self) -> float:
        """Do what is due.

        Returns:
            Seconds until something is due again.
        """
        now_s = time.monotonic()
        if now_s >= self._check_due_s:
            self._check_claims()
        retry_s = self._submitter.submit_due()
        if time.monotonic() >= self._scan_due_s:
            self._scan_due_s = time.monotonic() + self._scan()
        self._report()
        due_s = min(self._scan_due_s, self._check_due_s) - time.monotonic()
        return max(0.0, due_s if retry_s is None else min(due_s, retry_s))

    def _scan(self) -> float:
        """Scan the folder, claim and submit complete files; return the seconds until the next scan."""
        found = self._scanner.scan()
        self._left.update(found)
        self._watcher.use(found.folders)
        self._claimer.forget_missing(found.files)
        ready, settles_s = self._stability.settled(
            [*found.files, *self._empty_folders.take(found.subfolders)]
        )
        idle_s = self._settings.rescan_s if self._watcher.mode == "events" else self._settings.poll_s
        if ready and not self._can_write():
            return wait_s(self._host_failures)
        for at in range(0, len(ready), BATCH):
            self._daemon.pulse()
            claimed = (self._claimer.claim(item) for item in ready[at : at + BATCH])
            claims = [self._left.told(claim) for claim in claimed if claim is not None]
            self._submitter.submit(claims)
            self._submitted += len(claims)
            if self._daemon.stopping.is_set():
                break
        self._left.failed = self._claimer.failed(self._scanner.root)
        due = [value for value in (settles_s, self._claimer.next_s) if value is not None]
        # A little later, so that the next scan finds the time to have passed.
        return min([idle_s, *(value + 0.005 for value in due)])

    def _can_write(self) -> bool:
        """Return whether the folders have space and can be written; if not, files wait in the drop folder."""
        workspace = self._workspace
        try:
            workspace.create()
            for folder in (self._claims.root, workspace.workdesk, workspace.outbox, workspace.state_dir):
                require_free_space(folder, self._settings.free_min_bytes)
        except (JobFailed, SettingsError) as error:
            self._host_failures += 1
            if error.message != self._host_problem:
                log.warning("station.held", reason=str(error))
            self._host_problem = error.message
            return False
        if self._host_failures:
            log.info("station.resumed")
        self._host_failures, self._host_problem = 0, ""
        return True

    def _check_claims(self) -> None:
        """Settle claims whose event was missed, adopt claims without a job, and clean up."""
        now_s = time.monotonic()
        self._check_due_s = now_s + self._settings.rescan_s
        if now_s >= self._cleanup_due_s:
            self._cleanup_due_s = now_s + _CLEANUP_INTERVAL_S
            remove_old_days(self._workspace.undo_dir, keep_s=self._daemon.loaded.settings.retention_s)
            remove_old_drafts(self._workspace.inbox)
        self._left.foreign = foreign_entries(self._workspace.inbox)
        try:
            orphans = self._orphans(self._completion.settle(self._claims.all_ids()))
        except StoreUnreachable:
            # Only the store knows which claims have jobs; new files go to the spool meanwhile.
            self._check_due_s = now_s + _UNAVAILABLE_CHECK_S
            return
        first, self._claims_checked = not self._claims_checked, True
        if orphans:
            log.info("station.claims_adopted", claims=len(orphans))
        self._submitter.submit(self._adopt_all(orphans, first=first))

    def _orphans(self, unknown: list[str]) -> list[str]:
        """Return the claims that have no job and that no part of a running station is about to submit."""
        if not unknown:
            return []
        spooled = {job_id_of(entry) for entry in self._daemon.acceptance.spool.entries()}
        now_s = time.time()
        return [
            job_id
            for job_id in unknown
            if job_id not in spooled
            and not self._submitter.is_waiting(job_id)
            and (not self._claims_checked or self._claims.age_s(job_id, now_s) >= _ORPHAN_S)
        ]

    def _adopt_all(self, orphans: Iterable[str], *, first: bool) -> Iterator[Claim]:
        """Yield the claims of orphans one by one, as the caller reads them."""
        for job_id in orphans:
            claim = self._adopt(job_id, first=first)
            if claim is not None:
                yield claim
                # The caller has read the file, and we did not crash.
                self._claims.forget_tries(job_id)

    def _adopt(self, job_id: str, *, first: bool) -> Claim | None:
        """Return the claim of an orphan; None if it has no file or crashes the station."""
        claim = self._claims.load(job_id)
        if claim is None:
            if self._claims.age_s(job_id, time.time()) > _ORPHAN_S:
                self._claims.discard(job_id)
            return None
        # A file that crashes the station whenever it is read must not be read forever.
        if first and self._claims.count_try(job_id) > self._settings.tries:
            refuse(
                self._claims,
                job_id,
                f"The station crashed {self._settings.tries} times while it read this file.",
            )
            return None
        return claim

    def _report(self) -> None:
        """Publish the state of the station for ``3ox status``."""
        self._daemon.report(
            mode=self._watcher.mode,
            handed_in=str(self._submitted),
            taken=str(self._completion.completed),
            waiting=str(self._submitter.waiting + self._claimer.failed_count),
            held=self._host_problem,
            left=str(self._left.count),
            left_names=self._left.names(),
        )
