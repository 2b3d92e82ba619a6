"""Which job types the live workers carry: why a queued job waits if none carries its type."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from middleware.job.assembly import LIFE_FIELDS, WAITING
from middleware.job.keys import QUEUE, Keys
from middleware.job.records import JobRecord
from middleware.job.states import State
from middleware.job.types import JOB_TYPES
from ops.store.resp import Reply

#: What was read of the workers is used for this long.
_FRESH_S = 0.5
_QUEUE_AT = LIFE_FIELDS.index("queue")


class Carrier(NamedTuple):
    """What a live worker carries.

    Attributes:
        types: Names of its job types.
        queues: Names of the queues that it consumes.
    """

    types: frozenset[str]
    queues: frozenset[str]


class Carriers:
    """The live workers of a bridge.

    Args:
        read: Runs commands in one round trip.
        keys: Key names of the bridge.
    """

    def __init__(self, read: Callable[[Sequence[tuple[str | int, ...]]], list[Reply]], keys: Keys) -> None:
        self._read = read
        self._keys = keys
        self._known: tuple[float, list[Carrier]] | None = None

    def live(self) -> list[Carrier]:
        """Return what each live worker carries; read at most twice a second.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        known = self._known
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        clock, workers = self._read([("TIME",), ("ZRANGE", self._keys.workers, 0, -1, "WITHSCORES")])
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        live = [
            item.decode()
            for item, until in zip(workers[::2], workers[1::2], strict=True)
            if float(until) > now_ms
        ]
        rows = self._read([("HMGET", self._keys.heartbeat(worker), "types", "queues") for worker in live])
        found = [carrier_of(types, queues) for types, queues in rows]
        self._known = (time.monotonic(), found)
        return found

    def explain(
        self, records: Sequence[JobRecord], lives: Sequence[list[bytes | None]]
    ) -> Sequence[JobRecord]:
        """Return the records; the reason of those that are queued says if no live worker carries their type.

        Args:
            records: The jobs.
            lives: Values of ``LIFE_FIELDS`` of each.
        """
        if not any(record.status == State.QUEUED for record in records):
            return records
        live = self.live()
        return [
            msgspec.structs.replace(record, reason=_reason(record, life[_QUEUE_AT], live))
            if record.status == State.QUEUED
            else record
            for record, life in zip(records, lives, strict=True)
        ]


def carrier_of(types: bytes | None, queues: bytes | None) -> Carrier:
    """Return what a heartbeat says that its worker carries.

    Args:
        types: Field ``types``; None from a worker of an earlier version, which carries all built-in types.
        queues: Field ``queues``.
    """
    names = JOB_TYPES if types is None else types.decode().split()
    return Carrier(
        frozenset(names), frozenset([QUEUE] if types is None or queues is None else queues.decode().split())
    )


def carried_types(declared: Mapping[str, str], queues: Collection[str], *, runs_built_in: bool) -> list[str]:
    """Return the job types that a worker runs, in order: those whose jobs are on queues that it consumes.

    Args:
        declared: The queue of each actor that the worker declares.
        queues: The queues that it consumes.
        runs_built_in: Whether it is a worker of the bridge's own pool.
    """
    return sorted(name for name in declared if _is_carried(name, declared[name], queues, runs_built_in))


def _is_carried(name: str, queue: str, queues: Collection[str], runs_built_in: bool) -> bool:
    row = JOB_TYPES.get(name)
    if row is None:
        return queue in queues
    # An earlier version put every job of a built-in type on the queue ``jobs``.
    on_first = runs_built_in and QUEUE in queues
    return not row.internal and (queue in queues or on_first or not {*row.other_queues}.isdisjoint(queues))


def _reason(record: JobRecord, queue: bytes | None, live: Sequence[Carrier]) -> str:
    """Return why a queued job waits, after a stored reason, such as that it was recovered."""
    of_type = [worker for worker in live if record.job_type in worker.types]
    name = QUEUE if queue is None else queue.decode()
    if not of_type:
        why = f"no worker carries {record.job_type}"
    elif not any(name in worker.queues for worker in of_type):
        why = f"no worker on queue {name} carries {record.job_type}"
    else:
        return record.reason
    return why if record.reason == WAITING else f"{record.reason}; {why}"
