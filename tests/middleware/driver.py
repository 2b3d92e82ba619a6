"""Drives the scripts as workers and doors do, and looks at what they left in the store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from middleware.broker.scripts import Scripts
from middleware.broker.transitions import Bounds, Enqueued, EnqueueRequest, Fetched, Settlement
from middleware.job.ids import new_job_id
from middleware.job.keys import Keys
from middleware.job.reader import Reader
from middleware.job.records import JobRecord
from middleware.job.schema import encode_job, make_job
from middleware.job.states import State
from ops.store.client import Store

LEASE_MS = 60_000


class Delivery(msgspec.Struct, frozen=True):
    """One job in the hands of one worker."""

    worker: str
    token: str
    job_id: str
    attempt: int


class Driver:
    """The scripts under one prefix.

    Args:
        url: Of a real store.
        prefix: Before all keys.
        bounds: Limits; the defaults if None.
    """

    def __init__(self, url: str, prefix: str, bounds: Bounds | None = None) -> None:
        self.store = Store(url)
        self.prefix = prefix
        self.keys = Keys(prefix)
        self.scripts = Scripts(self.store, prefix, bounds)
        self.reader = Reader(self.store, prefix)
        self._tokens = itertools.count(1)

    @staticmethod
    def request(
        job_id: str | None = None,
        *,
        job_type: str = "heartbeat",
        depends_on: Sequence[str] = (),
        **fields: Any,
    ) -> EnqueueRequest:
        """Return a request for ``enqueue`` with a valid job of this type."""
        name = new_job_id() if job_id is None else job_id
        priority = fields.pop("priority", 5)
        project = fields.get("project", "")
        payload = {"task": "x"} if job_type == "task.custom" else {}
        job = make_job(
            job_type,
            payload,
            job_id=name,
            priority=priority,
            project=project if project else None,
            idempotency_key=fields.get("idempotency_key"),
            depends_on=list(depends_on),
            on_dependency_failure=fields.pop("on_dependency_failure", "skip"),
        )
        return EnqueueRequest(
            job_id=name,
            priority=priority,
            spec=encode_job(job),
            job_type=job_type,
            input_sha256="0" * 64,
            depends_on=depends_on,
            **fields,
        )

    def offer(self, *requests: EnqueueRequest) -> list[Enqueued]:
        """Enqueue, whatever the answer is."""
        return list(self.scripts.enqueue(requests))

    def add(self, job_id: str | None = None, **fields: Any) -> str:
        """Enqueue a job that has to be taken; gives its id."""
        request = self.request(job_id, **fields)
        reply = self.offer(request)[0]
        assert reply.outcome == "new", reply
        return request.job_id

    def fetch_raw(
        self,
        worker: str = "w1",
        *,
        room: int = 1,
        token: str = "",
        lease_ms: int = LEASE_MS,
    ) -> Fetched:
        """Fetch; a new token unless one is given."""
        fence = token if token else f"d{next(self._tokens)}"
        return self.scripts.fetch(worker, "jobs", room=room, delivery=fence, lease_ms=lease_ms)

    def fetch(
        self,
        worker: str = "w1",
        *,
        room: int = 1,
        token: str = "",
        lease_ms: int = LEASE_MS,
    ) -> list[Delivery]:
        """Fetch and give the deliveries."""
        fence = token if token else f"d{next(self._tokens)}"
        got = self.fetch_raw(worker, room=room, token=fence, lease_ms=lease_ms)
        return [Delivery(worker, fence, job.job_id, job.attempt) for job in got.jobs]

    def look_now(self) -> None:
        """Look for ended leases now, so that the next look is not the first after a gap."""
        now_s, micros = self.store.call("TIME")
        self.store.call("SET", f"{self.prefix}looked", int(now_s) * 1000 + int(micros) // 1000)

    def recover_lapsed(self) -> list[tuple[str, str, str]]:
        """Recover all whose lease has ended."""
        self.look_now()
        return self.scripts.recover()

    def take(self, worker: str = "w1", **how: Any) -> Delivery:
        """Fetch exactly one job."""
        got = self.fetch(worker, **how)
        assert len(got) == 1, got
        return got[0]

    def settle(self, delivery: Delivery, outcome: str = "completed", **how: Any) -> tuple[str, str]:
        """End an attempt; gives the script's answer and the job's status."""
        settlement = Settlement(outcome=outcome, **how)
        return self.scripts.settle(delivery.worker, delivery.job_id, delivery.token, settlement)

    def run(self, outcome: str = "completed", **how: Any) -> str:
        """Add a job, fetch it (the queue must be empty otherwise) and end it; gives its id."""
        job_id = self.add()
        delivery = self.take()
        assert delivery.job_id == job_id
        assert self.settle(delivery, outcome, **how)[0] == "settled"
        return job_id

    def job(self, job_id: str) -> JobRecord:
        """Read a job."""
        return self.reader.job(job_id)

    def status(self, job_id: str) -> str:
        """Read a job's status."""
        return self.job(job_id).status

    def chain(self, job_id: str) -> list[str]:
        """Read the statuses of a job's receipt chain."""
        return [line.status for line in self.reader.receipt(job_id).transitions]

    def places(self, job_id: str) -> list[State]:
        """Tell in which states' sets the job stands; it has to be one."""
        return [s for s in State if self.store.call("ZSCORE", self.keys.state(s), job_id) is not None]

    def held_by(self, worker: str) -> list[str]:
        """Tell which jobs stand on a worker's processing set."""
        return sorted(item.decode() for item in self.store.call("HKEYS", self.keys.processing(worker)))

    def running(self) -> dict[str, int]:
        """Read how much of each limited resource is in use."""
        flat = self.store.call("HGETALL", self.keys.running)
        return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}

    def bell(self) -> int:
        """Count the tokens that wake consumers."""
        return int(self.store.call("LLEN", self.keys.bell()))

    def field(self, job_id: str, name: str) -> str | None:
        """Read a field of the job's hash."""
        value = self.store.call("HGET", self.keys.job(job_id), name)
        return None if value is None else str(value.decode())

    def now_ms(self) -> int:
        """Read the store's clock."""
        seconds, micros = self.store.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def pass_ms(self, step_ms: int) -> None:
        """Let the store's clock go on by at least this much; for delays of a few milliseconds only."""
        until_ms = self.now_ms() + step_ms
        while self.now_ms() < until_ms:
            time.sleep(0.0005)  # there is no event for the store's clock to advance

    def key_names(self) -> list[str]:
        """List every key under the prefix, without it."""
        names: list[str] = []
        cursor = b"0"
        while True:
            cursor, found = self.store.call("SCAN", cursor, "MATCH", f"{self.prefix}*", "COUNT", 1000)
            names.extend(item.decode().removeprefix(self.prefix) for item in found)
            if cursor == b"0":
                return sorted(names)

    def close(self) -> None:
        """Remove everything under the prefix and hang up."""
        names = self.key_names()
        if names:
            self.store.call("DEL", *[f"{self.prefix}{name}" for name in names])
        self.store.close()
