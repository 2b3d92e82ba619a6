"""``3ox status``: the bridge's health, within two seconds even if the store hangs."""

from __future__ import annotations

from typing import Any

import click

from ingress.cli.shared import json_option
from ingress.core.status_report import QUEUE_STATES, with_configured
from ingress.core.terminal import emit_json, note, print_fields, print_table
from ingress.core.text import count_of, duration, one_line, short_id
from ingress.dispatch import Bridge, bridge_status, connect
from middleware.job.types import JOB_TYPES
from ops.errors import StoreUnreachable
from ops.local_model.paths import running_models

#: Limit for the store's answer, in seconds; the whole command must end within 2 s.
STORE_TIMEOUT_S = 1.2
_CARRIED_MAX_CHARS = 40
#: Entries of the drop folder that are named.
_LEFT_MAX = 5


@click.command()
@json_option
def status(*, as_json: bool) -> int:
    """Show the bridge's health.

    The store, the queue by state, the workers and the jobs they run, and the daemons. Exits 3 within two
    seconds if the store does not answer.
    """
    bridge = connect(timeout_s=STORE_TIMEOUT_S)
    try:
        found = bridge_status()
    except StoreUnreachable:
        if as_json:
            emit_json(_without_store(bridge))
        elif spooled := bridge.spooled():
            note(f"{count_of(spooled, 'job')} in the spool; '3ox jobs --status spooled' lists them.")
        raise
    if as_json:
        emit_json(found)
    else:
        _print_status(found)
    return 0


def _without_store(bridge: Bridge) -> dict[str, Any]:
    return {
        "store": {"url": bridge.store.url, "version": None, "healthy": False, "latency_ms": None},
        "queue": dict.fromkeys((*QUEUE_STATES, "ready", "dead")),
        "queues": {},
        "workers": [],
        "daemons": with_configured(bridge.loaded, []),
        "drop_folder": None,
        "spool": {"jobs": bridge.spooled()},
        "deliveries": {"waiting": None, "failed": None},
        "models": running_models(bridge.loaded.workspace),
        "ask": None,
    }


def _print_status(found: dict[str, Any]) -> None:
    store, queue = found["store"], found["queue"]
    health = "healthy" if store["healthy"] else "not healthy"
    print_fields(
        [
            (
                "store",
                one_line(f"{health}, {store['latency_ms']:.1f} ms, {store['version']}, {store['url']}"),
            ),
            ("queue", "  ".join(f"{name}: {queue.get(name, 0)}" for name in QUEUE_STATES)),
            ("spool", f"jobs: {found['spool']['jobs']}"),
            (
                "deliveries",
                f"pending: {found['deliveries']['waiting']}  failed: {found['deliveries']['failed']}",
            ),
            ("ask", _ask_line(found["ask"])),
            *(("model", _model_line(model)) for model in found["models"]),
            *((("IN1N.3OX", _left_line(found["drop_folder"])),) if found["drop_folder"]["left"] else ()),
        ],
    )
    click.echo()
    if found["workers"]:
        print_table(
            ("WORKER", "HOST", "PID", "THREADS", "BEAT", "DONE", "FAILED", "QUEUES", "CARRIES", "PROCESSING"),
            [
                (
                    one_line(str(worker["worker_id"])),
                    one_line(str(worker["host"])),
                    str(worker["pid"]),
                    str(worker["threads"]),
                    duration(worker["heartbeat_age_s"]) + (" ago" if worker["healthy"] else " ago, lost"),
                    str(worker["completed"]),
                    str(worker["failed"]),
                    " ".join(worker["queues"]),
                    _carried(worker["types"]),
                    " ".join(map(short_id, worker["processing"])),
                )
                for worker in found["workers"]
            ],
        )
    else:
        click.echo("No worker is running. '3ox up' or '3ox worker' starts one.")
    if found["daemons"]:
        click.echo()
        print_table(
            ("DAEMON", "HOST", "PID", "HEALTH", "BEAT"),
            [
                (
                    one_line(str(daemon["name"])),
                    one_line(str(daemon["host"])),
                    str(daemon["pid"]),
                    _health(daemon),
                    "-"
                    if daemon["heartbeat_age_s"] is None
                    else duration(daemon["heartbeat_age_s"]) + " ago",
                )
                for daemon in found["daemons"]
            ],
        )


def _health(daemon: dict[str, Any]) -> str:
    """Return the health of a daemon, with the reason why it does not run."""
    if daemon["healthy"]:
        return "healthy"
    reason = one_line(str(daemon.get("reason", "")))
    return f"not running: {reason}" if reason else "not healthy"


def _left_line(folder: dict[str, Any]) -> str:
    names = folder["names"][:_LEFT_MAX]
    more = "" if folder["left"] <= len(names) else f" and {folder['left'] - len(names)} more"
    entries = "entry is" if folder["left"] == 1 else "entries are"
    return one_line(f"{folder['left']} {entries} not ingested: {', '.join(names)}{more}")


def _carried(types: list[str]) -> str:
    """Return the job types that a worker carries; the built-in ones as one word if it carries them all."""
    built_in = set(JOB_TYPES)
    if not built_in <= set(types):
        built_in = set()
    names = [*(["built-in"] if built_in else []), *(name for name in types if name not in built_in)]
    text = " ".join(names)
    return text if len(text) <= _CARRIED_MAX_CHARS else f"{text[: _CARRIED_MAX_CHARS - 1]}…"


def _ask_line(use: dict[str, Any]) -> str:
    tokens, cost = f"{use['tokens']} tokens", f"${use['cost_usd']:.4f}"
    if use["budget_tokens"] is not None:
        tokens += f" of {use['budget_tokens']}"
    if use["budget_usd"] is not None:
        cost += f" of ${use['budget_usd']:g}"
    return f"today: {count_of(use['answers'], 'paid answer')}, {tokens}, {cost}"


def _model_line(model: dict[str, Any]) -> str:
    size = "" if model["memory_bytes"] is None else f", {model['memory_bytes'] / 1_000_000:.0f} MB of memory"
    return one_line(f"{model['name']}, offline, pid {model['pid']}{size}, since {model['since']}")


COMMANDS = [status]
