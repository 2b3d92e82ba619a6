"""The state of the whole bridge on one page: ``3ox status`` and its JSON."""

from __future__ import annotations

import time
from typing import Any

from ingress.core.bridge import Bridge
from middleware.broker.spending import NANO_PER_USD, day_use_command, read_day_use
from middleware.job.deliveries import count_undelivered
from middleware.job.records import utc, utc_now
from ops.local_model.paths import running_models

#: More workers than this are counted, but not listed.
_WORKERS_MAX = 200


def overview(bridge: Bridge) -> dict[str, Any]:
    """Read the state of a bridge in five round trips.

    Raises:
        StoreUnreachable: The store is away.
    """
    store, keys = bridge.store, bridge.reader.keys
    began_s = time.perf_counter()
    clock = store.call("TIME")
    latency_ms = (time.perf_counter() - began_s) * 1000
    now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
    today = utc_now()[:10]
    info, ids, doors, use = bridge.reader.read(
        [
            ("INFO", "server"),
            ("ZRANGE", keys.workers, 0, _WORKERS_MAX - 1, "WITHSCORES"),
            ("ZRANGE", keys.daemons, 0, _WORKERS_MAX - 1, "WITHSCORES"),
            day_use_command(keys.prefix, today),
        ],
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
        "daemons": _daemons(bridge, [item.decode() for item in doors[::2]], doors[1::2], now_ms),
        "spool": {"jobs": bridge.spooled()},
        "deliveries": count_undelivered(bridge.reader.read, keys),
        "models": running_models(bridge.loaded.workspace),
        "ask": _ask_use(bridge, today, use),
        "at": utc(now_ms),
    }


def _ask_use(bridge: Bridge, day: str, reply: list[bytes | None]) -> dict[str, Any]:
    """Give what the answers of a day have taken, and what they may take."""
    use, budget = read_day_use(reply), bridge.loaded.settings.ask.budget
    return {
        "day": day,
        "answers": use.answers,
        "tokens": use.tokens,
        "cost_usd": use.nano_usd / NANO_PER_USD,
        "budget_tokens": budget.day_tokens,
        "budget_usd": budget.day_usd,
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


def _daemons(bridge: Bridge, members: list[str], leases: list[bytes], now_ms: int) -> list[dict[str, Any]]:
    keys = bridge.reader.keys
    replies = bridge.reader.read([("HGETALL", keys.daemon(member)) for member in members]) if members else []
    daemons = []
    for flat, lease in zip(replies, leases, strict=True):
        said = {flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)}
        if "at" not in said:
            continue
        known = {name: said.pop(name, "") for name in ("name", "host", "pid", "at")}
        daemons.append(
            {
                "name": known["name"],
                "host": known["host"],
                "pid": int(known["pid"]),
                "healthy": float(lease) > now_ms,
                "heartbeat_age_s": round(max(0, now_ms - int(known["at"])) / 1000, 3),
                **said,
            },
        )
    _tell_who_led(daemons)
    return sorted(daemons, key=lambda daemon: (daemon["name"], daemon["host"], daemon["pid"]))


def _tell_who_led(daemons: list[dict[str, Any]]) -> None:
    """Let one clock alone lead: what a killed one said last stays in the store until it is forgotten."""
    terms = [daemon for daemon in daemons if daemon.get("role") == "leads"]
    latest = max((int(daemon["fence"]) for daemon in terms), default=0)
    for daemon in terms:
        if int(daemon["fence"]) < latest:
            daemon["role"] = "led"
