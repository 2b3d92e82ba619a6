"""The state of the whole bridge: what ``3ox status`` shows and its JSON."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from ingress.core.bridge import Bridge
from middleware.broker.spending import NANO_PER_USD, day_use_command, read_day_use
from middleware.job.carriers import carrier_of
from middleware.job.deliveries import undelivered
from middleware.job.keys import DELIVER_QUEUE
from middleware.job.records import utc, utc_now
from ops.local_model.paths import running_models
from ops.settings.load import LoadedSettings
from ops.supervision.state_file import read_state

#: The states that the status shows, in this order.
QUEUE_STATES = ("queued", "scheduled", "held", "processing", "retrying", "failed")
#: Programs of ``3ox up`` that are neither workers nor daemons of an interface.
_NO_DAEMONS = frozenset({"store", "watchdog"})
#: Workers and daemons listed at most.
_WORKERS_MAX = 200


def overview(bridge: Bridge) -> dict[str, Any]:
    """Return the state of a bridge, as ``3ox status --json`` prints it.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    store, keys = bridge.store, bridge.reader.keys
    began_s = time.perf_counter()
    clock = store.call("TIME")
    latency_ms = (time.perf_counter() - began_s) * 1000
    now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
    today = utc_now()[:10]
    info, workers, daemons, use = bridge.reader.read(
        [
            ("INFO", "server"),
            ("ZRANGE", keys.workers, 0, _WORKERS_MAX - 1, "WITHSCORES"),
            ("ZRANGE", keys.daemons, 0, _WORKERS_MAX - 1, "WITHSCORES"),
            day_use_command(keys.prefix, today),
        ],
    )
    summaries = {name: bridge.reader.summary(name) for name in (*bridge.reader.queues(), DELIVER_QUEUE)}
    queue = _queue(bridge.reader.summary())
    running = _daemons(bridge, [item.decode() for item in daemons[::2]], daemons[1::2], now_ms)
    return {
        "store": {
            "url": store.url,
            "version": _version(info.decode()),
            "healthy": True,
            "latency_ms": round(latency_ms, 3),
        },
        # "ready" and "dead" are the names that "queued" and "failed" had in version 0.1.
        "queue": {**queue, "ready": queue["queued"], "dead": queue["failed"]},
        "queues": {name: _queue(summary) for name, summary in summaries.items()},
        "workers": _workers(bridge, [item.decode() for item in workers[::2]], workers[1::2], now_ms),
        "daemons": running,
        "drop_folder": _drop_folder(running),
        "spool": {"jobs": bridge.spooled()},
        "deliveries": undelivered(summaries[DELIVER_QUEUE]),
        "models": running_models(bridge.loaded.workspace),
        "ask": _ask_use(bridge, today, use),
        "at": utc(now_ms),
    }


def _queue(summary: dict[str, int]) -> dict[str, int]:
    return {name: summary[name] for name in QUEUE_STATES}


def _ask_use(bridge: Bridge, day: str, reply: list[bytes | None]) -> dict[str, Any]:
    """Return what the paid answers of a day have used, and the daily budget."""
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
        fields = {flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)}
        beat_ms = int(fields.get("at", now_ms))
        carrier = carrier_of(
            *(fields[name].encode() if name in fields else None for name in ("types", "queues"))
        )
        workers.append(
            {
                "worker_id": worker_id,
                "host": fields.get("host", ""),
                "pid": int(fields.get("pid", 0)),
                "threads": int(fields.get("threads", 0)),
                "unit": fields.get("unit", ""),
                "queues": sorted(carrier.queues),
                "types": sorted(carrier.types),
                "processing": [item.decode() for item in held],
                "completed": int(fields.get("completed", 0)),
                "failed": int(fields.get("failed", 0)),
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
        fields = {flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)}
        if "at" not in fields:
            continue
        known = {name: fields.pop(name, "") for name in ("name", "host", "pid", "at")}
        daemons.append(
            {
                "name": known["name"],
                "host": known["host"],
                "pid": int(known["pid"]),
                "healthy": float(lease) > now_ms,
                "heartbeat_age_s": round(max(0, now_ms - int(known["at"])) / 1000, 3),
                **fields,
            },
        )
    _mark_former_leaders(daemons)
    daemons = with_configured(bridge.loaded, daemons)
    return sorted(daemons, key=lambda daemon: (daemon["name"], daemon["host"], daemon["pid"]))


def with_configured(loaded: LoadedSettings, daemons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the daemons and, not healthy, those that are configured and do not run, each with the reason.

    Configured are those that ``3ox up`` on this host supervises; without it, the bot if there is a token, and
    the scheduler if there are schedules. A daemon that keeps exiting may be alive at this moment.

    Args:
        loaded: The settings.
        daemons: Those that have sent heartbeats.
    """
    state = read_state(loaded.workspace)
    listed = list(daemons)
    if state is None:
        settings = loaded.settings
        wanted = {"telegram": bool(settings.telegram_token), "clock": bool(settings.schedule)}
        missing = [name for name, wants in wanted.items() if wants and not _runs(name, daemons)]
        reason = "configured, and not running"
        return listed + [_not_running(name, socket.gethostname(), 0, reason) for name in missing]
    for program in state.programs:
        if program.ready or program.name in _NO_DAEMONS or program.name.startswith("worker-"):
            continue
        pid = 0 if program.pid is None else program.pid
        listed = [row for row in listed if (row["name"], row["pid"]) != (program.name, pid) or pid == 0]
        reason = f"restarted {program.restarts} times" if program.restarts else "starting"
        said = f": {program.said}" if program.said else ""
        listed.append(_not_running(program.name, socket.gethostname(), pid, f"{reason}{said}"))
    return listed


def _runs(name: str, daemons: list[dict[str, Any]]) -> bool:
    return any(row["name"] == name and row["healthy"] for row in daemons)


def _not_running(name: str, host: str, pid: int, reason: str) -> dict[str, Any]:
    entry = {"name": name, "host": host, "pid": pid, "healthy": False, "heartbeat_age_s": None}
    return {**entry, "reason": reason}


def left_in_drop_folder(bridge: Bridge) -> dict[str, Any]:
    """Return what a running station leaves in the drop folder: the number and the first entries.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    clock, daemons = bridge.reader.read(
        [("TIME",), ("ZRANGE", bridge.reader.keys.daemons, 0, _WORKERS_MAX - 1, "WITHSCORES")]
    )
    now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
    return _drop_folder(_daemons(bridge, [item.decode() for item in daemons[::2]], daemons[1::2], now_ms))


def _drop_folder(daemons: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many entries of the drop folder are not ingested, and the first of them with the reason."""
    stations = [daemon for daemon in daemons if daemon["name"] == "station" and daemon["healthy"]]
    left = max(stations, key=lambda daemon: int(daemon.get("left", 0)), default={})
    return {"left": int(left.get("left", 0)), "names": json.loads(left.get("left_names", "[]"))}


def _mark_former_leaders(daemons: list[dict[str, Any]]) -> None:
    """Set the role of earlier leaders to ``led``: the entry of a killed one stays until it expires."""
    terms = [daemon for daemon in daemons if daemon.get("role") == "leads"]
    latest = max((int(daemon["fence"]) for daemon in terms), default=0)
    for daemon in terms:
        if int(daemon["fence"]) < latest:
            daemon["role"] = "led"
