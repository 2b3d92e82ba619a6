"""What would stop ``3ox up``: checked before it starts anything, and listed by ``3ox doctor``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from ingress.cli.destination_checks import check_webhooks
from ingress.cli.programs import require_telegram
from ingress.core.api_address import bind_api, bind_tcp
from ingress.core.schedules import make_schedules
from middleware.job.reader import Reader
from middleware.job.types import JOB_TYPES
from ops.errors import DiskFull, SettingsError, StoreUnreachable
from ops.http.environment import http_environment
from ops.settings.load import LoadedSettings
from ops.store.client import Store
from ops.supervision.state_file import running_pid

#: Free space below which the bridge does not start: the store could not write its first jobs.
START_FREE_MIN_BYTES = 16 * 1024 * 1024


def require_startable(loaded: LoadedSettings) -> None:
    """Return if nothing that is known prevents the bridge from starting.

    Raises:
        BridgeError: The first problem, with its place and remedy.
    """
    for _, check in START_CHECKS:
        check(loaded)


def check_folders(loaded: LoadedSettings) -> str:
    """Check that every folder of the workspace can be written; return the workspace."""
    workspace = loaded.workspace
    workspace.create()
    folders = (
        *(workspace.home, workspace.inbox, workspace.outbox, workspace.state_dir, workspace.run_dir),
        *(workspace.store_dir, workspace.spool_dir, workspace.ledger_dir, workspace.keys_dir),
    )
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"{folder} is not writable.", remedy="Correct its owner or mode.")
    for file in (workspace.log_file, workspace.history_db):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            raise SettingsError(f"{file} is not writable.", remedy="Correct its owner or mode.")
    return str(workspace.home)


def check_disk(loaded: LoadedSettings) -> str:
    """Check that the disk of the workspace has space; return how much is free."""
    return require_space(loaded.workspace.home, START_FREE_MIN_BYTES)


def require_space(folder: Path, needed_bytes: int) -> str:
    """Return the free space on the disk of a folder, as text.

    Raises:
        DiskFull: It is less than is needed.
    """
    free_bytes = shutil.disk_usage(folder).free
    free = f"{free_bytes / 1024**2:.1f} MiB"
    if free_bytes < needed_bytes:
        raise DiskFull(
            f"The disk is full: {folder} has {free} free, and {needed_bytes // 1024**2} MiB are needed.",
            remedy="Free some space, or set BRIDGE_HOME to a folder on another disk.",
        )
    return f"{free} free"


def check_network(_loaded: LoadedSettings) -> str:
    """Check proxies and certificates of the environment; return what they are."""
    found = http_environment()
    parts = [f"{proxy.variable}={proxy.place}" for proxy in found.proxies.values()]
    parts += [f"certificates: {place}" for place in (found.ca_file, found.ca_dir) if place]
    return ", ".join(parts) if parts else "direct"


def check_ports(loaded: LoadedSettings) -> str:
    """Check that the ports of the REST API and the embedded store are free; return them."""
    settings = loaded.settings
    place = f"{settings.api_host}:{settings.api_port}"
    ports = f"{place}, {settings.store_port}" if settings.store_port else place
    if running_pid(loaded.workspace) is not None:
        return f"{ports}, used by this bridge"
    bind_api(settings).close()
    if settings.store_port and loaded.embedded_store:
        remedy = "Set BRIDGE_STORE_PORT to another port; port 0 opens none."
        bind_tcp("127.0.0.1", settings.store_port, "The store", remedy).close()
    return ports


def check_schedules(loaded: LoadedSettings) -> str:
    """Check every schedule; return their number."""
    return str(len(make_schedules(loaded.settings.schedule)))


def check_types(loaded: LoadedSettings) -> str:
    """Check the names of job types in the settings; return the number of built-in types."""
    JOB_TYPES.require_settings(loaded.settings, lambda: _published_types(loaded))
    return f"{len(JOB_TYPES)} built in"


def _published_types(loaded: LoadedSettings) -> Collection[str] | None:
    """Return the types that workers have published; None if they are unknown, or more will follow."""
    if loaded.settings.actors:
        return None
    store = Store.open(loaded)
    try:
        return Reader(store, loaded.settings.key_prefix).published_types()
    except StoreUnreachable:
        is_new = loaded.embedded_store and not any(loaded.workspace.store_dir.glob("*"))
        return () if is_new else None
    finally:
        store.close()


def check_telegram(loaded: LoadedSettings) -> str:
    """Check that the bot can run if one is configured; return whether it is."""
    if not loaded.settings.telegram_token:
        return "not configured"
    require_telegram(loaded)
    return f"configured, {loaded.settings.telegram_api}"


#: Name in the report, and check: it returns what it found, or raises the problem.
START_CHECKS: tuple[tuple[str, Callable[[LoadedSettings], str]], ...] = (
    ("workspace", check_folders),
    ("disk", check_disk),
    ("types", check_types),
    ("schedules", check_schedules),
    ("network", check_network),
    ("telegram", check_telegram),
    ("webhooks", check_webhooks),
    ("ports", check_ports),
)
