"""The measurements; every contestant goes through the same ones in the same way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import msgspec

from ops.errors import BridgeError
from tests.bench.arena import Arena
from tests.bench.contestants import NAMES, OURS, RESULTS
from tests.bench.job import MARK, make_nonce

Say = Callable[[str], None]

_POLL_S = 0.01
#: The store's own housekeeping (rehashing, the append-only buffer) has come to rest after this.
_SETTLE_S = 0.5
_DRAIN_MAX_S = 120.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        rounds: How often each contestant's throughput is measured; the median counts.
        jobs: In each of them.
        samples: Of the idle latencies.
        trips: Of round trips one right after the other.
        idle_s: For how long idle workers are watched.
        commands: Of each command of the command line.
    """

    rounds: int = 5
    jobs: int = 5000
    samples: int = 42
    trips: int = 40
    idle_s: float = 10.0
    commands: int = 30


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one contestant.

    Attributes:
        enqueue_per_s: Jobs a second, sent one by one from one thread.
        batch_per_s: Jobs a second, sent as one batch; None if there are no batches.
        drain_per_s: Jobs a second, from the first commit of an end to the last.
        worker_us: Processor time of all workers for each drained job; None where it cannot be read.
        queued_bytes: Of the store's memory, for each waiting job.
        finished_bytes: Of the store's memory, for each finished job.
    """

    contestant: str
    enqueue_per_s: float
    batch_per_s: float | None
    drain_per_s: float
    worker_us: float | None
    queued_bytes: float
    finished_bytes: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one contestant, in ms, and what its idle workers ask of the store.

    Attributes:
        pickup_ms: From before the job was sent to an idle worker until its body began.
        idle_trip_ms: Of the same jobs, until the result had come.
        busy_trip_ms: The same for jobs sent one right after the other.
        idle_requests_per_s: Reads of the store from its connections: what the workers sent.
        idle_commands_per_s: Commands that the store ran, those inside scripts counted too.
    """

    contestant: str
    pickup_ms: list[float]
    idle_trip_ms: list[float]
    busy_trip_ms: list[float]
    idle_requests_per_s: float
    idle_commands_per_s: float


def measure_throughput(plan: Plan, say: Say) -> list[Throughput]:
    """Measure enqueue, drain and memory of all contestants, in turns.

    Args:
        plan: How much.
        say: Takes a line for the operator.
    """
    rounds = []
    for number in range(plan.rounds):
        order = NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]
        for name in order:
            with Arena(name) as arena:
                found = _one_round(arena, name, plan.jobs)
            say(
                f"round {number + 1} of {plan.rounds}, {name}: enqueue {found.enqueue_per_s:,.0f}/s, "
                f"drain {found.drain_per_s:,.0f}/s"
            )
            rounds.append(found)
    return rounds


def _one_round(arena: Arena, name: str, jobs: int) -> Throughput:
    """Fill the queue while the workers are frozen, then let them empty it.

    Frozen workers leave both cores to the sender, are booted and warm when it counts, and on waking look
    for work at once: a sleep between two polls that has run out meanwhile costs nothing.
    """
    empty_bytes = _memory_bytes(arena)
    arena.pause()
    began_s = time.monotonic()
    for number in range(jobs):
        arena.send(f"{number}-")
    enqueue_s = time.monotonic() - began_s
    queued_bytes = _memory_bytes(arena)
    time.sleep(1.0)  # longer than the longest sleep of a stock worker between two polls
    cpu_before_s = arena.worker_cpu_s()
    arena.resume()
    drain_per_s = _drain(arena, jobs)
    cpu_after_s = arena.worker_cpu_s()
    finished_bytes = _memory_bytes(arena)
    arena.pause()
    nonces = [make_nonce(f"b{number}-") for number in range(jobs)]
    began_s = time.monotonic()
    batched = arena.contestant.send_many(nonces)
    batch_s = time.monotonic() - began_s
    return Throughput(
        contestant=name,
        enqueue_per_s=jobs / enqueue_s,
        batch_per_s=jobs / batch_s if batched else None,
        drain_per_s=drain_per_s,
        worker_us=None
        if cpu_before_s is None or cpu_after_s is None
        else (cpu_after_s - cpu_before_s) / jobs * 1e6,
        queued_bytes=(queued_bytes - empty_bytes) / jobs,
        finished_bytes=(finished_bytes - empty_bytes) / jobs,
    )


def _memory_bytes(arena: Arena) -> int:
    time.sleep(_SETTLE_S)  # nothing tells when it has come to rest
    figures = arena.info("memory")
    # Buffers of connections and of the append-only file come and go; all the rest is keys.
    return figures["used_memory"] - figures["mem_clients_normal"] - figures["mem_aof_buffer"]


def _drain(arena: Arena, jobs: int) -> float:
    """Return the jobs per second between the first look that saw an end and the one that saw the last.

    The count is one figure of the store for each contestant, read a hundred times a second for all alike.
    """
    deadline_s = time.monotonic() + _DRAIN_MAX_S
    first: tuple[float, int] | None = None
    while True:
        left, now_s = arena.unfinished(), time.monotonic()
        if first is None and left < jobs:
            first = (now_s, left)
        if left == 0 and first is not None:
            elapsed_s = now_s - first[0]
            return first[1] / elapsed_s if elapsed_s > 0 else float("nan")
        if now_s > deadline_s:
            raise BridgeError(f"{left} of {jobs} jobs had not ended after {_DRAIN_MAX_S:g} s")
        time.sleep(_POLL_S)


def measure_latency(plan: Plan, gaps_s: list[float], say: Say) -> list[Latency]:
    """Measure what idle workers do: take a job up, and nothing.

    Both pools stand idle side by side and get their jobs alternately, so that noise of the machine hits both.

    Args:
        plan: How much.
        gaps_s: Pauses before each sample.
        say: Takes a line for the operator.
    """
    names = (OURS, RESULTS)
    with contextlib.ExitStack() as stack:
        arenas = {name: stack.enter_context(Arena(name)) for name in names}
        pickup: dict[str, list[float]] = {name: [] for name in names}
        trips: dict[str, list[float]] = {name: [] for name in names}
        for number, gap_s in enumerate(gaps_s):
            time.sleep(gap_s)  # the job has to come unexpectedly
            for name, arena in arenas.items():
                pickup_ms, trip_ms = _sample(arena, f"{MARK}{number}-")
                pickup[name].append(pickup_ms)
                trips[name].append(trip_ms)
        say(f"idle workers: {len(gaps_s)} jobs each")
        idle = _idle(arenas, plan.idle_s)
        say(f"idle workers: watched for {plan.idle_s:g} s")
        busy: dict[str, list[float]] = {name: [] for name in names}
        for number in range(plan.trips):
            for name, arena in arenas.items():
                # The first of two ends the other contestant's turn: only the second finds busy workers.
                arena.send_and_wait(f"turn{number}-")
                busy[name].append(_trip_ms(arena, f"trip{number}-"))
        say(f"busy workers: {plan.trips} round trips each")
    return [
        Latency(
            contestant=name,
            pickup_ms=pickup[name],
            idle_trip_ms=trips[name],
            busy_trip_ms=busy[name],
            idle_requests_per_s=idle[name][0],
            idle_commands_per_s=idle[name][1],
        )
        for name in names
    ]


def _sample(arena: Arena, text: str) -> tuple[float, float]:
    sent_s, began_s = time.time(), time.monotonic()
    arena.send_and_wait(text)
    trip_ms = (time.monotonic() - began_s) * 1000
    started, nonce = arena.probe.recv(1024).decode().split(" ", 1)
    if not nonce.startswith(text):
        raise BridgeError(f"the body of {nonce!r} began, that of {text!r} should have")
    return (float(started) - sent_s) * 1000, trip_ms


def _trip_ms(arena: Arena, text: str) -> float:
    began_s = time.monotonic()
    arena.send_and_wait(text)
    return (time.monotonic() - began_s) * 1000


def _idle(arenas: dict[str, Arena], seconds: float) -> dict[str, tuple[float, float]]:
    """Give requests and commands a second of each."""
    time.sleep(2.0)  # until the polls are as far apart as they get
    before = {name: arena.info("stats") for name, arena in arenas.items()}
    time.sleep(seconds)  # the window in which is counted
    after = {name: arena.info("stats") for name, arena in arenas.items()}

    def rate(name: str, field: str) -> float:
        # One of them is the INFO that asks.
        return (after[name][field] - before[name][field] - 1) / seconds

    return {
        name: (rate(name, "total_reads_processed"), rate(name, "total_commands_processed")) for name in arenas
    }
