"""The station's loop: look, wait until files are whole, take them, hand them in, tidy up after their jobs.

Events only wake the loop; what is there is always found by a look through the folder. So an event that got
lost, a folder that was moved in, a file that came while nobody served: all are found the same way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from ingress.core.daemon import Daemon
from ingress.core.spooled_jobs import id_of
from ingress.station.claiming import Taking
from ingress.station.claims import Claim, Claims
from ingress.station.cleanup import forget_days, remove_empty_folders, remove_old_drafts
from ingress.station.completion import Endings
from ingress.station.inbox import Inbox
from ingress.station.stability import Stability, ignore_lease_breaks
from ingress.station.submission import BATCH, Entrance, refuse, wait_s
from ingress.station.watch import Watch
from ops.errors import JobFailed, SettingsError, StoreUnreachable
from ops.files import require_room
from ops.logs import get_logger

NAME = "station"
#: The loop turns at least so often, to say that it does.
_TURN_S = 0.5
#: A claim of somebody else's is taken over when it has been without a job for so long.
_ORPHAN_S = 15.0
_SWEEP_AGAIN_S = 1.0
_FORGET_EVERY_S = 3600.0

log = get_logger(__name__)


def serve(daemon: Daemon) -> None:
    """Serve the drop folder until the daemon is told to stop."""
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
    """The drop folder's keeper.

    Args:
        daemon: Its connection, spool and sign of life.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._workspace = daemon.loaded.workspace
        self._settings = daemon.loaded.settings.station
        self._wake = threading.Event()
        self._claims = Claims(self._workspace)
        self._inbox = Inbox(self._workspace.inbox, self._settings.ignore)
        self._stability = Stability(settle_s=self._settings.settle_s, note_wait_s=self._settings.note_wait_s)
        self._taking = Taking(self._claims, self._settings.tries)
        self._entrance = Entrance(daemon.acceptance, self._claims, self._settings, daemon.pulse)
        self._endings = Endings(daemon.bridge, self._claims, self._again)
        self._entrance.endings = self._endings
        self._watch = Watch(self._workspace.inbox, self._settings.watch, self._wake)
        self._look_due_s = 0.0
        self._sweep_due_s = 0.0
        self._forget_due_s = 0.0
        self._swept = False
        self._held = 0
        self._held_for = ""
        self._handed_in = 0

    def open(self) -> None:
        """Begin to listen to the folder and to the jobs."""
        self._claims.root.mkdir(parents=True, exist_ok=True)
        self._endings.start()
        self._watch.start()

    def close(self) -> None:
        """Stop; what has been claimed and has no job yet is taken up at the next start."""
        self._watch.stop()
        self._endings.stop()

    def wait(self, seconds: float) -> None:
        """Wait for an event, but not for longer than this."""
        if self._wake.wait(seconds):
            self._wake.clear()
            self._look_due_s = 0.0

    def turn(self) -> float:
        """Do what is due.

        Returns:
            After how many seconds something is due again.
        """
        now_s = time.monotonic()
        if now_s >= self._sweep_due_s:
            self._sweep()
        retry_s = self._entrance.retry_due()
        if time.monotonic() >= self._look_due_s:
            self._look_due_s = time.monotonic() + self._look()
        self._tell()
        due_s = min(self._look_due_s, self._sweep_due_s) - time.monotonic()
        return max(0.0, due_s if retry_s is None else min(due_s, retry_s))

    def _again(self, job_id: str, first: str) -> None:
        self._entrance.again(job_id, first)
        self._wake.set()

    def _look(self) -> float:
        """Look through the folder and take what is ready; gives after how many seconds to look again."""
        seen = self._inbox.look()
        for trouble in seen.troubles:
            log.warning("station.folder_unreadable", reason=trouble)
        self._watch.use(seen.folders)
        self._taking.forget(seen.files)
        ready, settles_s = self._stability.settled(seen.files)
        idle_s = self._settings.rescan_s if self._watch.mode == "events" else self._settings.poll_s
        if ready and not self._has_room():
            return wait_s(self._held)
        for at in range(0, len(ready), BATCH):
            self._daemon.pulse()
            taken = (self._taking.take(item) for item in ready[at : at + BATCH])
            claims = [claim for claim in taken if claim is not None]
            self._entrance.hand_in(claims)
            self._handed_in += len(claims)
            if self._daemon.stopping.is_set():
                break
        due = [value for value in (settles_s, self._taking.next_s) if value is not None]
        # A little later than the very moment: the clock of the look must be past it.
        return min([idle_s, *(value + 0.005 for value in due)])

    def _has_room(self) -> bool:
        """See, before any work, that there is room and the right to write; otherwise hold off."""
        workspace = self._workspace
        try:
            workspace.create()
            for folder in (self._claims.root, workspace.workdesk, workspace.outbox, workspace.state_dir):
                require_room(folder, self._settings.free_min_bytes)
        except (JobFailed, SettingsError) as error:
            self._held += 1
            if error.message != self._held_for:
                log.warning("station.held", reason=str(error))
            self._held_for = error.message
            return False
        if self._held:
            log.info("station.goes_on")
        self._held, self._held_for = 0, ""
        return True

    def _sweep(self) -> None:
        """Settle what no event told of, and take up claims that have no job."""
        now_s = time.monotonic()
        self._sweep_due_s = now_s + self._settings.rescan_s
        if now_s >= self._forget_due_s:
            self._forget_due_s = now_s + _FORGET_EVERY_S
            forget_days(self._workspace.undo_dir, keep_s=self._daemon.loaded.settings.retention_s)
            remove_old_drafts(self._workspace.inbox)
        remove_empty_folders(self._inbox, self._settings)
        try:
            orphans = self._orphans(self._endings.look(self._claims.all_ids()))
        except StoreUnreachable:
            # Whether they have jobs only the store can say; new files go to the spool meanwhile.
            self._sweep_due_s = now_s + _SWEEP_AGAIN_S
            return
        first, self._swept = not self._swept, True
        if orphans:
            log.info("station.taken_up", claims=len(orphans))
        self._entrance.hand_in(self._adopted(orphans, first=first))

    def _orphans(self, unknown: list[str]) -> list[str]:
        """Give those of the claims without a known job that nobody cares for."""
        if not unknown:
            return []
        spooled = {id_of(entry) for entry in self._daemon.acceptance.spool.entries()}
        now_s = time.time()
        return [
            job_id
            for job_id in unknown
            if job_id not in spooled
            and not self._entrance.is_waiting(job_id)
            and not self._endings.is_answered(job_id)
            and (not self._swept or self._claims.age_s(job_id, now_s) >= _ORPHAN_S)
        ]

    def _adopted(self, orphans: Iterable[str], *, first: bool) -> Iterator[Claim]:
        """Load claims that have no job, one after the other, as they are read."""
        for job_id in orphans:
            claim = self._adopt(job_id, first=first)
            if claim is not None:
                yield claim
                # It has been read, and we are still there.
                self._claims.forget_tries(job_id)

    def _adopt(self, job_id: str, *, first: bool) -> Claim | None:
        """Load a claim that has no job."""
        claim = self._claims.load(job_id)
        if claim is None:
            if self._claims.age_s(job_id, time.time()) > _ORPHAN_S:
                self._claims.discard(job_id)
            return None
        # A file that ends the station each time it is read is not read for ever.
        if first and self._claims.count_try(job_id) > self._settings.tries:
            refuse(
                self._claims,
                job_id,
                f"The station ended {self._settings.tries} times while it read this file.",
            )
            return None
        return claim

    def _tell(self) -> None:
        self._daemon.tell(
            mode=self._watch.mode,
            handed_in=str(self._handed_in),
            taken=str(self._endings.taken),
            waiting=str(self._entrance.waiting + self._taking.in_trouble),
            held=self._held_for,
        )
