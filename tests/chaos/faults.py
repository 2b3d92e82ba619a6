"""Carries faults out and keeps a list of what was really hit."""

from __future__ import annotations

import heapq
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from ops.processes import process_start_time
from tests.chaos.arena import Arena, Worker, signal_process
from tests.chaos.plan import Fault

T = TypeVar("T")
#: So much more often than by chance, a worker is hit that has something in hand.
_BUSY_SHARE = 0.75


class Kill(Struct, frozen=True, kw_only=True):
    """A worker process that was killed.

    Attributes:
        at_ms: When, milliseconds since 1970.
        jobs: What it had in hand.
    """

    worker_id: str
    at_ms: float
    jobs: list[str]


class Saboteur:
    """Does to an arena what a plan says.

    Args:
        arena: Where.
        say: Takes a line for the reader.

    Attributes:
        done: How many faults of each kind have hit something.
        kills: Every worker process killed, by whatever kind.
        store_kills_ms: When the store was killed, milliseconds since 1970.
    """

    def __init__(self, arena: Arena, say: Callable[[str], None]) -> None:
        self._arena = arena
        self._say = say
        self._undo: list[tuple[float, int, int, int | None]] = []
        self.done: Counter[str] = Counter()
        self.kills: list[Kill] = []
        self.store_kills_ms: list[float] = []

    def carry_out(self, fault: Fault) -> bool:
        """Do it.

        Returns:
            False if there was nothing to hit just now.
        """
        hit = self._hit(fault)
        if hit is None:
            return False
        self.done[fault.kind] += 1
        lasts = f" for {fault.lasts_s:g} s" if fault.lasts_s else ""
        self._say(f"{fault.at_s:7.2f} s  {fault.kind:<15} {hit}{lasts}")
        return True

    def next_undo_s(self) -> float | None:
        """Tell when something paused is to go on, by the monotonic clock."""
        return self._undo[0][0] if self._undo else None

    def undo_due(self, *, everything: bool = False) -> None:
        """Let go on what has been paused for long enough."""
        while self._undo and (everything or self._undo[0][0] <= time.monotonic()):
            _, _, pid, start_time = heapq.heappop(self._undo)
            signal_process(pid, signal.SIGCONT, start_time)

    def _hit(self, fault: Fault) -> str | None:
        """Do it; says what was hit, None if there is nothing."""
        if fault.kind in {"cut", "blackout"} or fault.kind.startswith("torn-"):
            return self._hit_proxy(fault)
        if fault.kind in {"worker-kill", "worker-pause", "worker-freeze", "master-kill", "unit-kill"}:
            worker = self._victim(fault.pick)
            return None if worker is None else self._hit_worker(fault, worker)
        pid = self._find(fault)
        if fault.kind in {"store-pause", "store-freeze"}:
            return None if pid is None else self._pause(pid, fault.lasts_s)
        if pid is None or not signal_process(pid, signal.SIGKILL):
            return None
        if fault.kind == "store-kill":
            self.store_kills_ms.append(time.time() * 1000)
        if fault.kind == "supervisor-kill":
            self._arena.up()
        return f"pid {pid}"

    def _hit_proxy(self, fault: Fault) -> str:
        proxy = self._arena.proxy
        if fault.kind == "cut":
            proxy.cut()
        elif fault.kind == "blackout":
            proxy.blackout(fault.lasts_s)
        else:
            proxy.tear(fault.kind.removeprefix("torn-"), fault.pick)
            return f"after {fault.pick:.0%}"
        return "all connections through the proxy"

    def _find(self, fault: Fault) -> int | None:
        arena = self._arena
        outside = [keeper.pid for keeper in arena.outside if keeper.pid is not None]
        finders: dict[str, Callable[[], int | None]] = {
            "watchdog-kill": lambda: _choose(arena.watchdogs(), fault.pick),
            "3ox-worker-kill": lambda: _choose(outside, fault.pick),
            "ingress-kill": lambda: None if arena.ingress is None else arena.ingress.pid,
            "store-kill": lambda: arena.program("store"),
            "store-pause": lambda: arena.program("store"),
            "store-freeze": lambda: arena.program("store"),
            "supervisor-kill": arena.supervisor,
        }
        return finders[fault.kind]()

    def _victim(self, pick: float) -> Worker | None:
        workers = self._arena.workers()
        busy = [worker for worker in workers if worker.jobs]
        if busy and pick < _BUSY_SHARE:
            return _choose(busy, pick / _BUSY_SHARE)
        return _choose(workers, pick)

    def _hit_worker(self, fault: Fault, worker: Worker) -> str | None:
        what = f"{worker.worker_id} with {len(worker.jobs)} jobs"
        if fault.kind in {"worker-pause", "worker-freeze"}:
            return None if self._pause(worker.pid, fault.lasts_s) is None else what
        at_ms = time.time() * 1000
        if fault.kind == "master-kill":
            # The worker below hears of it from the kernel, and stops in good order.
            return what if signal_process(worker.master, signal.SIGKILL) else None
        if fault.kind == "unit-kill":
            try:
                os.killpg(worker.master, signal.SIGKILL)
            except ProcessLookupError:
                return None
        elif not signal_process(worker.pid, signal.SIGKILL):
            return None
        self.kills.append(Kill(worker_id=worker.worker_id, at_ms=at_ms, jobs=worker.jobs))
        return what

    def _pause(self, pid: int, lasts_s: float) -> str | None:
        start_time = process_start_time(pid)
        if start_time is None or not signal_process(pid, signal.SIGSTOP, start_time):
            return None
        heapq.heappush(self._undo, (time.monotonic() + lasts_s, len(self._undo), pid, start_time))
        return f"pid {pid}"


def _choose(items: Sequence[T], pick: float) -> T | None:
    return items[int(pick * len(items))] if items else None
