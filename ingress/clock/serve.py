"""``3ox clock``: leads or follows, fires what is due, and does what a bridge needs done periodically."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ingress.clock.archiving import ArchivingDuty
from ingress.clock.duties import Duties
from ingress.clock.firing import Firing
from ingress.clock.sealing import SealingDuty
from ingress.core.bridge import Bridge
from ingress.core.schedules import ScheduleBook
from middleware.broker.leadership import Claim, Leadership, Term, steady_s
from middleware.broker.outage import Outage
from ops.backoff import Backoff
from ops.errors import QueueFull, StoreError, StoreUnreachable
from ops.logs import get_logger
from ops.processes import pid_alive
from ops.threads import start_duty

if TYPE_CHECKING:
    from ingress.core.daemon import Daemon

#: Changed schedules, a jump of the store's clock and our own lease are seen to so often.
_TURN_S = 1.0
#: A clock that follows asks a moment after the lease has ended, not all of them at the same moment.
_FOLLOW_SLACK_S = 0.05
#: Between two tries while the queue is full.
_FULL_WAIT_S = 1.0

log = get_logger(__name__)


class Clock:
    """One clock of a bridge.

    Args:
        daemon: What it runs in.

    Raises:
        SettingsError: A schedule cannot be.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        settings = daemon.loaded.settings
        self._book = ScheduleBook(daemon.live)
        self.leadership = Leadership(
            daemon.bridge.scripts, member_name(daemon.name), lease_s=settings.clock_lease_s
        )
        self._firing = Firing(daemon.bridge, self.leadership, catch_up_max=settings.clock_catch_up_max)
        self._outage = Outage()
        self._backoff = Backoff()
        self._first = 0

    def run(self) -> None:
        """Turn until the daemon stops, then give up the lease."""
        while not self._daemon.stopping.is_set():
            self._daemon.pulse()
            self._daemon.stopping.wait(self._turn())
        try:
            self.leadership.release()
        except (StoreUnreachable, StoreError) as error:
            log.info("clock.lease_left", reason=str(error))

    def _turn(self) -> float:
        """Do what is to be done now; gives how long to wait, in seconds."""
        if self._book.refresh():
            loaded = self._book.loaded
            self._firing.use(Bridge(loaded), catch_up_max=loaded.settings.clock_catch_up_max)
        began_s = steady_s()
        try:
            claim = self.leadership.claim()
            wait_s = self._lead(claim, began_s) if claim.term is not None else self._follow(claim)
        except (StoreUnreachable, StoreError) as error:
            # Who leads cannot be known now: nothing is fired until it can, and then by each policy.
            self._outage.begin(error)
            return self._backoff.next_s()
        except QueueFull as error:
            log.warning("clock.queue_full", reason=str(error))
            return _FULL_WAIT_S
        self._outage.end()
        self._backoff.reset()
        return wait_s

    def _follow(self, claim: Claim) -> float:
        self._daemon.tell(role="follows", leader=claim.holder)
        if is_dead_neighbour(claim.holder):
            log.warning("clock.leader_died", leader=claim.holder)
            self.leadership.depose(claim.holder)
            return 0.0
        slack_s = _FOLLOW_SLACK_S * random.uniform(0.5, 1.5)  # noqa: S311 (so that not all ask at once)
        return min(_TURN_S, claim.left_s + slack_s)

    def _lead(self, claim: Claim, asked_s: float) -> float:
        term = claim.term
        if term is None:
            return 0.0
        if claim.new:
            log.info("clock.leads", fence=term.fence, member=claim.holder)
            self._firing.read_marks()
        self._daemon.tell(
            role="leads",
            fence=str(term.fence),
            fired=str(self._firing.fired),
            skipped=str(self._firing.skipped),
        )
        self._firing.forget_others(term, self._book.schedules)
        now_ms = claim.now_ms
        next_ms: int | None = None
        schedules = self._book.schedules
        for at in range(len(schedules)):
            schedule = schedules[(self._first + at) % len(schedules)]
            if self._must_renew(term):
                # Those that had no turn yet have theirs first.
                self._first = (self._first + at) % len(schedules)
                return 0.0
            due_ms = self._firing.fire(term, schedule, now_ms)
            if due_ms is not None:
                next_ms = due_ms if next_ms is None else min(next_ms, due_ms)
        if next_ms is None:
            return _TURN_S
        # The store's time now: what it said, and what has passed since.
        left_s = (next_ms - now_ms) / 1000 - (steady_s() - asked_s)
        return min(_TURN_S, max(0.0, left_s))

    def _must_renew(self, term: Term) -> bool:
        """Tell whether the lease comes first: firing many runs takes its time."""
        return self._daemon.stopping.is_set() or term.left_s < self.leadership.lease_s / 2


def serve(daemon: Daemon) -> None:
    """Run the clock until the daemon stops."""
    clock = Clock(daemon)
    duties = Duties(daemon, clock.leadership)
    sealing = SealingDuty(daemon, clock.leadership)
    archiving = ArchivingDuty(daemon, clock.leadership)
    start_duty("duties", duties.run, ended=daemon.stopping.is_set)
    start_duty("sealing", sealing.run, ended=daemon.stopping.is_set)
    start_duty("archiving", archiving.run, ended=daemon.stopping.is_set)
    daemon.ready()
    clock.run()


@functools.cache
def _place() -> str:
    """Give a word for where a process id means the same process; empty if there is no telling.

    Containers can share a host's name, and have processes of the same number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return ""


def member_name(name: str) -> str:
    """Make a name for this process: ``clock@HOST:PID:PLACE:TOKEN``."""
    return f"{name}@{socket.gethostname()}:{os.getpid()}:{_place()}:{secrets.token_hex(4)}"


def is_dead_neighbour(member: str) -> bool:
    """Tell whether the process of this name ran beside us and has ended."""
    parts = member.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdigit():  # noqa: PLR2004 (of a name)
        return False
    return parts[2] != "" and parts[2] == _place() and not pid_alive(int(parts[1]))
