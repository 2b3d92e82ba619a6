"""What jobs must be like whatever happens to them: a model of what was told, and the looks at the store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from middleware.job.states import FINAL, TRANSITIONS, State
from tests.middleware.driver import Delivery, Driver

WORKERS = ("w1", "w2", "w3")
MAX_CRASHES = 3
CAPACITY = {"gpu": 2, "key": 1}
FIRST = frozenset({State.QUEUED, State.SCHEDULED, State.HELD})


def amounts(limits: str) -> dict[str, int]:
    """Read how much of each resource a job occupies."""
    pairs = (part.split("=") for part in limits.split(",") if part)
    return {name: int(amount.split("/")[0]) for name, amount in pairs}


class Seen(msgspec.Struct):
    """A job as the store has it at one moment."""

    status: str
    limits: str
    waits: int | None
    crashes: int
    attempt: int
    result: bytes | None
    chain: list[dict[str, Any]]


class Model:
    """What the doors, the workers and the operator were told, to be compared with the store.

    Args:
        driver: Leads to the store.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.store, self.keys = self.driver.store, self.driver.keys
        self.known: list[str] = []
        self.depends: dict[str, list[str]] = {}
        #: What each job waits for: of what it depends on, that which had not ended when it was queued.
        self.unmet: dict[str, set[str]] = {}
        self.by_key: dict[str, str] = {}
        #: What each job's holder is: only this delivery may settle it.
        self.holder: dict[str, Delivery] = {}
        self.deliveries: list[Delivery] = []
        self.settled: set[tuple[str, str, str]] = set()
        self.results: dict[str, bytes | None] = {}

    def look(self, job_id: str) -> Seen:
        """Read one job."""
        return self.look_at([job_id])[job_id]

    def look_at(self, ids: Sequence[str]) -> dict[str, Seen]:
        """Read jobs in one round trip."""
        fields = ("status", "limits", "waits", "crashes", "attempt")
        commands: list[tuple[str | int, ...]] = []
        for job_id in ids:
            commands += [
                ("HMGET", self.keys.job(job_id), *fields),
                ("GET", self.keys.result(job_id)),
                ("LRANGE", self.keys.receipts(job_id), 0, -1),
            ]
        replies = self.store.pipeline(commands)
        seen = {}
        for at, job_id in enumerate(ids):
            (status, limits, waits, crashes, attempt), result, chain = replies[3 * at : 3 * at + 3]
            assert status is not None, f"{job_id} is lost"
            seen[job_id] = Seen(
                status=status.decode(),
                limits="" if limits is None else limits.decode(),
                waits=None if waits is None else int(waits),
                crashes=0 if crashes is None else int(crashes),
                attempt=0 if attempt is None else int(attempt),
                result=result,
                chain=[msgspec.json.decode(line) for line in chain],
            )
        return seen

    def not_ended(self, ids: Sequence[str]) -> set[str]:
        """Choose those of these jobs that are known and have not ended."""
        known = [job_id for job_id in ids if job_id in self.known]
        return {job_id for job_id, job in self.look_at(known).items() if job.status not in FINAL}

    def check_everything(self) -> None:
        """State, place, fence, limits, receipts, results and wake-ups of all jobs tell one story."""
        seen = self.look_at(self.known)
        self.check_places(seen)
        self.check_limits(seen)
        for job_id, job in seen.items():
            check_chain(job)
            if job.status == "completed":
                assert job.result == self.results[job_id], "the result is not that of the committed attempt"
            self.unmet[job_id] -= {d for d in self.unmet[job_id] if d not in seen or seen[d].status in FINAL}
            if job.status == "held" and job.waits is not None:
                assert job.waits == len(self.unmet[job_id]) > 0
            assert job.crashes <= MAX_CRASHES

    def check_places(self, seen: dict[str, Seen]) -> None:
        """Each job is in the set of its state and in no other, and on one processing set iff it runs."""
        reads: list[tuple[str | int, ...]] = [("ZRANGE", self.keys.state(state), 0, -1) for state in State]
        reads += [("HGETALL", self.keys.processing(worker)) for worker in WORKERS]
        reads += [("ZRANGE", self.keys.index_all, 0, -1), ("ZRANGE", self.keys.index_tail, 0, -1)]
        reads += [("LRANGE", self.keys.bell(), 0, -1)]
        replies = self.store.pipeline(reads)
        sets = {state: [item.decode() for item in replies[at]] for at, state in enumerate(State)}
        stands = sorted((job_id, str(state)) for state, members in sets.items() for job_id in members)
        assert stands == sorted((job_id, job.status) for job_id, job in seen.items())
        fences = replies[len(State) : len(State) + len(WORKERS)]
        held = {
            row[at].decode(): (worker, row[at + 1].decode())
            for worker, row in zip(WORKERS, fences, strict=True)
            for at in range(0, len(row), 2)
        }
        assert sum(len(row) for row in fences) == 2 * len(held), "a job stands on two processing sets"
        assert held == {job_id: (d.worker, d.token) for job_id, d in self.holder.items()}
        assert set(held) == set(sets[State.PROCESSING])
        heads, tails, bell = replies[-3:]
        assert sorted(item.decode() for item in heads) == sorted(self.known)
        assert sorted(item.decode()[::-1] for item in tails) == sorted(self.known)
        assert len(bell) <= 64
        assert bell or not sets[State.QUEUED], "ready jobs, and no token that would wake a consumer"

    def check_limits(self, seen: dict[str, Seen]) -> None:
        """Running jobs occupy what is counted as in use, and jobs that wait for a slot will be woken."""
        used: dict[str, int] = {}
        for job in seen.values():
            if job.status == "processing":
                for name, amount in amounts(job.limits).items():
                    used[name] = used.get(name, 0) + amount
        assert self.driver.running() == used
        waiting: list[str] = []
        for name, capacity in CAPACITY.items():
            assert used.get(name, 0) <= capacity
            line = [
                item.decode()
                for item in self.store.call("ZRANGE", f"{self.driver.prefix}waiting:{name}", 0, -1)
            ]
            waiting += line
            coming = any(name in amounts(job.limits) for job in seen.values() if job.status == "queued")
            assert not line or used.get(name, 0) > 0 or coming, f"{line} wait for {name}, which is not in use"
        on_hold = [job_id for job_id, job in seen.items() if job.status == "held" and job.waits is None]
        assert sorted(waiting) == sorted(on_hold)


def check_chain(job: Seen) -> None:
    """A receipt chain begins like a job, makes allowed moves only, and ends where the job is."""
    states = [State(line["status"]) for line in job.chain]
    assert states[0] in FIRST
    for source, target in itertools.pairwise(states):
        assert target in TRANSITIONS[source], f"{source} -> {target}"
    assert states[-1] == job.status
    times = [line["at"] for line in job.chain]
    assert times == sorted(times)
    starts = [line["attempt"] for line in job.chain if line["status"] == "processing"]
    assert starts == sorted(starts)
    assert job.attempt <= len(starts)
