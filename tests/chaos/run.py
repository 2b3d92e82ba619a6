"""One run from beginning to end: start, load and faults, drain, count, stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from middleware.job.keys import Keys
from middleware.job.states import FINAL
from ops.errors import BridgeError, StartFailed
from ops.processes import wait_ended
from tests.chaos.arena import Arena
from tests.chaos.compositions import read_compositions
from tests.chaos.faults import Saboteur
from tests.chaos.follow_ups import FollowUps, accepted_parts, judge_follow_ups, read_parts
from tests.chaos.plan import Fault
from tests.chaos.report import Report
from tests.chaos.verdict import Judge, Verdict, read_accepted, read_journal, resumed_s, story
from tests.chaos.witness import Pulse, Witness

#: How long a fault waits for something to hit.
_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.1
#: What the jobs have started is gone when they have ended; the kernel gets a moment to say so.
_GONE_S = 1.0
_STORIES_MAX = 5

Say = Callable[[str], None]


class _Seen(Struct):
    """What is known when the bridge has come to rest."""

    verdict: Verdict
    follow_ups: FollowUps
    refused: dict[str, int]
    resumed_s: list[float]
    orphans: list[str]


class Run:
    """Carries a plan out.

    Args:
        arena: Not yet started.
        command: Replays the plan.
        say: Takes lines for the reader.
    """

    def __init__(self, arena: Arena, command: str, say: Say) -> None:
        self._arena = arena
        self._command = command
        self._say = say

    def carry_out(self) -> Report:
        """Do it all; whatever happens, nothing is left running.

        Raises:
            BridgeError: The bridge did not start, or its supervisor ended by itself.
        """
        began_s = time.monotonic()
        arena = self._arena
        saboteur = Saboteur(arena, self._say)
        try:
            arena.start()
            witness, pulse = Witness(arena.loaded, arena.files / "ends"), Pulse(arena.loaded)
            try:
                self._load(saboteur)
                self._drain()
            finally:
                pulse.stop()
                witness.stop()
            seen = self._count(saboteur, witness, pulse)
            left = arena.stop()
        finally:
            saboteur.undo_due(everything=True)
            arena.sweep()
        return self._report(time.monotonic() - began_s, saboteur, pulse, seen, left)

    def _load(self, saboteur: Saboteur) -> None:
        """Let jobs in and faults happen, each at its time."""
        plan = self._arena.plan
        began_s = time.monotonic()
        self._arena.open_the_door(time.time() + plan.load_s)
        for fault in plan.faults:
            self._wait(began_s + fault.at_s, saboteur)
            self._until_hit(fault, saboteur)
        self._wait(began_s + plan.load_s, saboteur)
        while saboteur.next_undo_s() is not None:
            self._wait(time.monotonic() + _LOOK_AGAIN_S, saboteur)

    def _until_hit(self, fault: Fault, saboteur: Saboteur) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not saboteur.carry_out(fault):
            if time.monotonic() > deadline_s:
                self._say(f"{fault.at_s:7.2f} s  {fault.kind:<15} nothing to hit")
                return
            self._wait(time.monotonic() + _LOOK_AGAIN_S, saboteur)

    def _wait(self, until_s: float, saboteur: Saboteur) -> None:
        while True:
            saboteur.undo_due()
            supervisor = self._arena.supervisor()
            if supervisor is None:
                raise StartFailed(
                    "3ox up has ended by itself.", remedy=f"See {self._arena.workspace.log_file}."
                )
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, _LOOK_AGAIN_S))

    def _drain(self) -> None:
        """Wait until every job has ended, or the time for that is over."""
        arena = self._arena
        deadline_s = time.monotonic() + arena.plan.drain_s
        self._say("load is over; waiting until every job has ended")
        while time.monotonic() < deadline_s:
            door_closed = arena.ingress is not None and arena.ingress.done
            if door_closed and not arena.spool_count() and not self._open_jobs():
                return
            time.sleep(_LOOK_AGAIN_S)
        self._say(f"not all jobs have ended within {arena.plan.drain_s:g} s")

    def _open_jobs(self) -> int:
        try:
            summary = self._arena.bridge.reader.summary()
        except BridgeError:
            return 1
        return sum(count for status, count in summary.items() if status not in FINAL)

    def _count(self, saboteur: Saboteur, witness: Witness, pulse: Pulse) -> _Seen:
        arena = self._arena
        strays = arena.children_of_jobs()
        orphans = [] if wait_ended(strays, _GONE_S) else [str(pid) for pid in arena.children_of_jobs()]
        accepted, refused = read_accepted(arena.files / "accepted")
        judge = Judge(
            read_journal(arena.files / "journal"),
            witness.ends,
            saboteur.kills,
            pulse.outages,
            saboteur.store_kills_ms if arena.plan.fsync == "everysec" else (),
        )
        prefix = arena.loaded.settings.key_prefix
        parts = read_parts(arena.bridge.store, Keys(prefix))
        verdict = judge.judge([*accepted, *accepted_parts(parts)], arena.bridge.store, prefix)
        sent = (arena.files / "compositions").read_bytes().splitlines()
        follow_ups = judge_follow_ups(read_compositions(sent), parts)
        for name, places in follow_ups.faults.items():
            for place in places[:_STORIES_MAX]:
                self._say(f"{name}: {place}")
        for name, jobs in verdict.faults.items():
            for job_id in jobs[:_STORIES_MAX]:
                self._say(f"{name}: {job_id}")
                for line in story(arena.bridge.store, prefix, job_id):
                    self._say(f"    {line}")
        return _Seen(verdict, follow_ups, dict(refused), resumed_s(pulse.outages, witness.times_ms), orphans)

    def _report(
        self, seconds: float, saboteur: Saboteur, pulse: Pulse, seen: _Seen, left: list[str]
    ) -> Report:
        arena, verdict = self._arena, seen.verdict
        problems = {name: len(jobs) for name, jobs in verdict.faults.items()}
        problems |= {name: len(places) for name, places in seen.follow_ups.faults.items()}
        problems["live workers taken for dead"] = len(verdict.taken_for_dead)
        problems |= {"orphan processes": len(seen.orphans), "left after 3ox down": len(left)}
        return Report(
            command=self._command,
            plan=arena.plan,
            seconds=round(seconds, 1),
            verdict=verdict,
            follow_ups=seen.follow_ups,
            refused=seen.refused,
            done=dict(saboteur.done),
            torn=arena.proxy.torn,
            cut_connections=arena.proxy.cuts,
            ingress_ends=0 if arena.ingress is None else sum(end != 0 for end in arena.ingress.ends),
            jobs_in_hand=sum(len(kill.jobs) for kill in saboteur.kills),
            outages_s=[round(back_s - away_s, 3) for away_s, back_s in pulse.outages],
            resumed_s=seen.resumed_s,
            orphans=seen.orphans,
            left=left,
            problems={name: count for name, count in problems.items() if count},
        )
