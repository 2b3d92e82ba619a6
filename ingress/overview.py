"""The state of the whole bridge on one page: ``3ox status`` and its JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from middleware.job.records import utc

if TYPE_CHECKING:
    from ingress.dispatch import Bridge

#: More workers than this are counted, but not listed.
_WORKERS_MAX = 200


def overview(bridge: Bridge) -> dict[str, Any]:
    """Read the state of a bridge in three round trips.

    Raises:
        StoreUnreachable: The store is away.
    """
    store, keys = bridge.store, bridge.reader.keys
    began_s = time.perf_counter()
    clock = store.call("TIME")
    latency_ms = (time.perf_counter() - began_s) * 1000
    now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
    info, ids = bridge.reader.read(
        [("INFO", "server"), ("ZRANGE", keys.workers, 0, _WORKERS_MAX - 1, "WITHSCORES")],
    )
    summary = bridge.reader.summary()
    return {
        "store": {
            "url": store.url,
            "version": _version(info.decode()),
            "healthy": True,
            "latency_ms": round(latency_ms, 3),
        },
        "queue": {
            "ready": summary["queued"],
            "scheduled": summary["scheduled"] + summary["retrying"],
            "held": summary["held"],
            "processing": summary["processing"],
            "dead": summary["failed"],
        },
        "workers": _workers(bridge, [item.decode() for item in ids[::2]], ids[1::2], now_ms),
        "daemons": [],
        "spool": {"jobs": bridge.spooled()},
        "at": utc(now_ms),
    }


def _version(info: str) -> str:
    rows = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    valkey = rows.get("valkey_version")
    return f"redis {rows.get('redis_version', '?')}" if valkey is None else f"valkey {valkey}"


def _workers(bridge: Bridge, ids: list[str], leases: list[bytes], now_ms: int) -> list[dict[str, Any]]:
    keys = bridge.reader.keys
    commands: list[tuple[str, ...]] = []
    for worker_id in ids:
        commands += [("HGETALL", keys.heartbeat(worker_id)), ("HKEYS", keys.processing(worker_id))]
    replies = bridge.reader.read(commands) if commands else []
    workers = []
    for at, worker_id in enumerate(ids):
        flat, held = replies[2 * at], replies[2 * at + 1]
        said = {flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)}
        beat_ms = int(said.get("at", now_ms))
        workers.append(
            {
                "worker_id": worker_id,
                "host": said.get("host", ""),
                "pid": int(said.get("pid", 0)),
                "threads": int(said.get("threads", 0)),
                "unit": said.get("unit", ""),
                "processing": [item.decode() for item in held],
                "completed": int(said.get("completed", 0)),
                "failed": int(said.get("failed", 0)),
                "heartbeat_age_s": round(max(0, now_ms - beat_ms) / 1000, 3),
                "lease_left_s": round((int(float(leases[at])) - now_ms) / 1000, 3),
                "healthy": float(leases[at]) > now_ms,
            },
        )
    return workers
