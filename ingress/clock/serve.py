"""``3ox clock``: leader election, the loop that starts scheduled runs, and the leader's other tasks."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import secrets
import socket
from pathlib import Path

from ingress.clock.archiving import ArchiveLoop
from ingress.clock.periodic_tasks import PeriodicTasks
from ingress.clock.run_submitter import RunSubmitter
from ingress.clock.sealing import SealLoop
from ingress.core.bridge import Bridge
from ingress.core.daemon import Daemon
from ingress.core.schedules import LiveSchedules, unknown_types
from middleware.broker.leadership import Claim, Leadership, Term, steady_s
from middleware.broker.outage import Outage
from ops.backoff import Backoff
from ops.errors import QueueFull, StoreError, StoreUnreachable
from ops.logs import get_logger
from ops.processes import pid_alive

#: Maximum duration of a turn of the loop. Each turn renews the lease and notices changed schedules and a
#: changed clock of the store.
_TURN_S = 1.0
#: Delay between the end of the lease and the claim of a follower; jitter keeps followers from colliding.
_FOLLOW_SLACK_S = 0.05
#: Pause while the queue is full.
_FULL_WAIT_S = 1.0

log = get_logger(__name__)


class Scheduler:
    """One scheduler of a bridge: claims the leader's lease and starts scheduled runs while it leads.

    Args:
        daemon: The process that it runs in.

    Attributes:
        leadership: This scheduler's part in the leader election.

    Raises:
        SettingsError: A schedule in ``3ox.toml`` is not valid.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        settings = daemon.loaded.settings
        self._live = LiveSchedules(daemon.live)
        self.leadership = Leadership(
            daemon.bridge.scripts, member_name(daemon.name), lease_s=settings.clock_lease_s
        )
        self._submitter = RunSubmitter(
            daemon.bridge, self.leadership, catch_up_max=settings.clock_catch_up_max
        )
        self._outage = Outage()
        self._backoff = Backoff()
        self._next_schedule = 0
        self._unknown_types: dict[str, str] = {}

    def run(self) -> None:
        """Lead or follow until the daemon stops, then release the lease."""
        while not self._daemon.stopping.is_set():
            self._daemon.pulse()
            self._daemon.stopping.wait(self._turn())
        try:
            self.leadership.release()
        except (StoreUnreachable, StoreError) as error:
            log.info("clock.lease_not_released", reason=str(error))

    def _turn(self) -> float:
        """Claim the lease and, if leading, submit due runs; return how long to wait, in seconds."""
        if self._live.refresh():
            loaded = self._live.loaded
            self._submitter.use(Bridge(loaded), catch_up_max=loaded.settings.clock_catch_up_max)
        began_s = steady_s()
        try:
            claim = self.leadership.claim()
            wait_s = self._lead(claim, began_s) if claim.term is not None else self._follow(claim)
        except (StoreUnreachable, StoreError) as error:
            # The leader is unknown. Runs that become due now are missed runs: see ``missed`` of a schedule.
            self._outage.begin(error)
            return self._backoff.next_s()
        except QueueFull as error:
            log.warning("clock.queue_full", reason=str(error))
            return _FULL_WAIT_S
        self._outage.end()
        self._backoff.reset()
        return wait_s

    def _follow(self, claim: Claim) -> float:
        self._daemon.report(role="follows", leader=claim.holder)
        if is_dead_local_process(claim.holder):
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
            self._submitter.load_progress()
        self._daemon.report(
            role="leads",
            fence=str(term.fence),
            fired=str(self._submitter.fired),
            skipped=str(self._submitter.skipped),
        )
        self._submitter.forget_others(term, self._live.schedules)
        self._log_unknown_types()
        next_ms: list[int] = []
        schedules = self._live.schedules
        for at in range(len(schedules)):
            number = (self._next_schedule + at) % len(schedules)
            if self._must_renew(term):
                # The next turn continues with this schedule.
                self._next_schedule = number
                return 0.0
            due_ms = self._submitter.submit_due(term, schedules[number], claim.now_ms)
            if due_ms is not None:
                next_ms.append(due_ms)
        if not next_ms:
            return _TURN_S
        left_s = (min(next_ms) - claim.now_ms) / 1000 - (steady_s() - asked_s)
        return min(_TURN_S, max(0.0, left_s))

    def _log_unknown_types(self) -> None:
        """Log schedules of a job type that no worker has published, once each, and when that has changed."""
        unknown = unknown_types(self._daemon.bridge, self._live.schedules)
        for name, reason in unknown.items():
            if name not in self._unknown_types:
                log.warning("schedule.unknown_type", schedule=name, reason=reason)
        for name in self._unknown_types.keys() - unknown.keys():
            log.info("schedule.type_known", schedule=name)
        self._unknown_types = unknown

    def _must_renew(self, term: Term) -> bool:
        """Return whether to end this turn, because half of the lease has passed or the daemon stops."""
        return self._daemon.stopping.is_set() or term.left_s < self.leadership.lease_s / 2


def serve(daemon: Daemon) -> None:
    """Run the scheduler until the daemon stops."""
    scheduler = Scheduler(daemon)
    for task in (PeriodicTasks, SealLoop, ArchiveLoop):
        task(daemon, scheduler.leadership).start()
    daemon.ready()
    scheduler.run()


@functools.cache
def _pid_scope() -> str:
    """Return an id of the boot and PID namespace in which our process ids are valid; empty if unknown.

    Host name and process id are not enough: containers can share both.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return ""


def member_name(name: str) -> str:
    """Return a unique name of this process: ``clock@HOST:PID:PID_SCOPE:TOKEN``."""
    return f"{name}@{socket.gethostname()}:{os.getpid()}:{_pid_scope()}:{secrets.token_hex(4)}"


def is_dead_local_process(member: str) -> bool:
    """Return whether the process of this name ran on this host and has ended."""
    parts = member.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdigit():  # noqa: PLR2004 (see member_name)
        return False
    return parts[2] != "" and parts[2] == _pid_scope() and not pid_alive(int(parts[1]))
