"""Read deliveries: where the results of a job were sent, and which have not arrived.

A delivery is a job on the queue ``deliver`` whose id is the job's with a number, ``ID-1``; a job that was
retried by hand and became final again has later ones for the same destinations; only those count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from middleware.job.keys import DELIVER_QUEUE, Keys
from middleware.job.records import Delivery, utc
from middleware.job.states import State

_Read = Callable[[Sequence[tuple[str | int, ...]]], list[Any]]
#: States of a pending delivery, in the order in which they are listed.
PENDING = (State.PROCESSING, State.QUEUED, State.RETRYING, State.SCHEDULED, State.HELD)
UNDELIVERED = (*PENDING, State.FAILED)
_FIELDS = ("spec", "status", "reason", "attempt", "completed", "due", "error")


class _Payload(Struct, frozen=True):
    sink: str = ""


class _Spec(Struct, frozen=True):
    payload: _Payload = _Payload()


class _Error(Struct, frozen=True):
    message: str = ""


_spec_decoder = msgspec.json.Decoder(_Spec)
_error_decoder = msgspec.json.Decoder(_Error)


def read_deliveries(read: _Read, keys: Keys, counts: dict[str, int]) -> dict[str, list[Delivery]]:
    """Return the deliveries of jobs, by job id; one round trip.

    Args:
        read: Runs commands, see ``Reader.read``.
        keys: The key names of the bridge.
        counts: Number of deliveries of each job, by job id.
    """
    ids = [f"{job_id}-{number}" for job_id, count in counts.items() for number in range(1, count + 1)]
    if not ids:
        return {}
    rows = read([("HMGET", keys.job(delivery_id), *_FIELDS) for delivery_id in ids])
    found: dict[str, dict[str, Delivery]] = {}
    for delivery_id, row in zip(ids, rows, strict=True):
        if row[0] is not None:
            delivery = _delivery(delivery_id, row)
            found.setdefault(job_of(delivery_id), {})[delivery.sink] = delivery
    return {job_id: list(by_sink.values()) for job_id, by_sink in found.items()}


def count_undelivered(read: _Read, keys: Keys) -> dict[str, int]:
    """Return the number of undelivered results: ``waiting`` (pending) and ``failed`` (no attempts left)."""
    counts = read([("ZCARD", keys.state(state, DELIVER_QUEUE)) for state in UNDELIVERED])
    return undelivered(dict(zip(map(str, UNDELIVERED), counts, strict=True)))


def undelivered(summary: dict[str, int]) -> dict[str, int]:
    """Return the same counts from the number of deliveries in each state."""
    return {"waiting": sum(summary[state] for state in PENDING), "failed": summary[State.FAILED]}


def undelivered_jobs(read: _Read, keys: Keys, limit: int) -> list[str]:
    """Return the ids of jobs with a delivery that has not arrived, without duplicates.

    Args:
        read: Runs commands, see ``Reader.read``.
        keys: The key names of the bridge.
        limit: Maximum number of jobs; also of deliveries read per state.
    """
    pages = read([("ZRANGE", keys.state(state, DELIVER_QUEUE), 0, limit - 1) for state in UNDELIVERED])
    return list(dict.fromkeys(job_of(item.decode()) for page in pages for item in page))[:limit]


def job_of(delivery_id: str) -> str:
    """Return the id of the job that a delivery belongs to."""
    return delivery_id.rpartition("-")[0]


def _delivery(delivery_id: str, row: list[bytes | None]) -> Delivery:
    life = {
        name: None if value is None else value.decode(errors="replace")
        for name, value in zip(_FIELDS, row, strict=True)
    }
    status = life["status"]
    error = life["error"]
    reason = life["reason"]
    if reason is None:
        reason = "" if error is None or status == State.COMPLETED else _error_decoder.decode(error).message
    return Delivery(
        delivery_id=delivery_id,
        sink=_spec_decoder.decode(str(life["spec"])).payload.sink,
        status="" if status is None else status,
        attempt=0 if life["attempt"] is None else int(life["attempt"]),
        reason=reason,
        delivered_at=utc(life["completed"]) if status == State.COMPLETED else None,
        due_at=utc(life["due"]) if status == State.RETRYING else None,
    )
