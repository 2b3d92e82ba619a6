"""The checks of ``3ox doctor``: one finding each, with a remedy for each problem."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from actors.llm.model_provider import ModelProvider
from actors.llm.provider_selection import choose
from ingress.cli.destination_checks import missing_variables, unsupported_notifications
from ingress.cli.plugin_checks import check_plugins
from ingress.cli.start_checks import START_CHECKS, START_FREE_MIN_BYTES
from ingress.core.bridge import Bridge
from ingress.core.status_report import left_in_drop_folder
from middleware.broker.type_directory import TypeDirectory
from middleware.job.keys import Keys
from middleware.job.reader import Reader
from ops.errors import BridgeError, InvalidJob, StoreUnreachable
from ops.local_model.client import load_engine, model_file, model_name
from ops.logfile import LogFile
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from ops.store.embedded import find_binary
from ops.store.url import mask_password
from ops.supervision.state_file import read_state, running_pid

Verdict = Literal["ok", "note", "bad"]

PYTHON_MIN = (3, 11)
#: Needed for streams with blocked readers, ZADD GT and the replies of functions.
STORE_MAJOR_MIN = 7
_PLUGIN_LABELS = {
    "actors": "actors",
    "ingress": "ingress adapter",
    "destinations": "destination",
    "providers": "provider",
    "middleware": "middleware",
}
DISK_FREE_MIN_BYTES = 256 * 1024 * 1024


class Finding(msgspec.Struct, frozen=True):
    """One line of the report.

    Attributes:
        name: What was checked.
        verdict: ``ok``; ``note``: works, with a limitation; ``bad``: does not work.
        found: What the check found.
        remedy: What to do.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def run_checks(environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Run all checks, the cheapest first; those that need valid settings are left out without them.

    Args:
        environ: Environment to read the settings from; that of the process when None.
    """
    yield _python()
    yield _platform()
    try:
        loaded = load_settings(environ=environ)
    except BridgeError as error:
        yield Finding("settings", "bad", error.message, error.remedy)
        return
    source = loaded.workspace.settings_file
    yield Finding("settings", "ok", str(source) if source.exists() else f"defaults; {source} does not exist")
    checks: tuple[Callable[[LoadedSettings], Iterator[Finding]], ...] = (
        _bridge,
        _start,
        _destinations,
        _log,
        _projects,
        _model,
        _providers,
        _plugins,
        _store,
    )
    for check in checks:
        yield from check(loaded)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON_MIN:  # pragma: no cover (the package cannot be installed there)
        return Finding("python", "bad", version, "Use Python 3.11 or later.")
    return Finding("python", "ok", f"{version} ({sys.executable})")


def _platform() -> Finding:
    if sys.platform.startswith("linux") and hasattr(os, "pidfd_open"):
        return Finding("platform", "ok", "Linux with pidfd, subreaper and parent death signal")
    return Finding(
        "platform",
        "note",
        f"{sys.platform}, without pidfd and parent death signal",
        "If the supervisor is killed, its programs keep running; '3ox down' stops them.",
    )


def _start(loaded: LoadedSettings) -> Iterator[Finding]:
    """Everything that stops ``3ox up`` before it starts a process."""
    for name, check in START_CHECKS:
        try:
            yield Finding(name, "ok", check(loaded))
        except BridgeError as error:
            yield Finding(name, "bad", error.message, error.remedy)
    free_bytes = shutil.disk_usage(loaded.workspace.home).free
    if START_FREE_MIN_BYTES <= free_bytes < DISK_FREE_MIN_BYTES:
        found = f"{free_bytes / 1024**2:.0f} MiB free"
        yield Finding("disk space", "note", found, "Free some space: the store cannot write to a full disk.")


def _destinations(loaded: LoadedSettings) -> Iterator[Finding]:
    for label, name in missing_variables(loaded):
        remedy = "Set it where the bridge runs; this environment may be another one."
        yield Finding(f"{label} secret", "note", f"{name} is not set", remedy)
    for label, position in unsupported_notifications(loaded):
        remedy = "Correct it; the Apprise documentation lists all URL formats."
        yield Finding(label, "bad", f"Apprise does not support URL {position}", remedy)


def _log(loaded: LoadedSettings) -> Iterator[Finding]:
    settings = loaded.settings
    path = loaded.workspace.log_file
    try:
        LogFile(path, max_bytes=settings.log_max_bytes, keep=settings.log_keep).close()
    except BridgeError as error:
        yield Finding("log", "bad", error.message, error.remedy)
        return
    yield Finding("log", "ok", f"{path}, {path.stat().st_size} bytes")


def _projects(loaded: LoadedSettings) -> Iterator[Finding]:
    projects = loaded.settings.projects
    for name, project in projects.items():
        label = f"project {name}"
        if not os.path.isdir(project.path):  # noqa: PTH112 (a path of the settings)
            yield Finding(
                label, "bad", f"{project.path} is not a directory", f"Correct [projects.{name}] path."
            )
        elif shutil.which(project.command[0], path=project.env.get("PATH")) is None and not os.access(
            os.path.join(project.path, project.command[0]),  # noqa: PTH118
            os.X_OK,
        ):
            yield Finding(
                label,
                "bad",
                f"program {project.command[0]!r} not found",
                f"Install it, or correct [projects.{name}] command.",
            )
        else:
            yield Finding(label, "ok", project.path)
    if not projects:
        yield Finding("projects", "note", "none", "'3ox run' needs [projects.NAME] in 3ox.toml.")


def _model(loaded: LoadedSettings) -> Iterator[Finding]:
    try:
        path = model_file(loaded)
        if path is None:
            return
        load_engine()
    except BridgeError as error:
        yield Finding("offline model", "note", error.message, error.remedy)
        return
    yield Finding("offline model", "ok", model_name(path))


def _providers(loaded: LoadedSettings) -> Iterator[Finding]:
    """The providers of ``ask`` that are configured: their packages, keys and addresses."""
    try:
        providers = choose(loaded, None)
    except BridgeError as error:
        yield Finding("language models", "note", error.message, error.remedy)
        return
    for provider in providers:
        if not isinstance(provider, ModelProvider):
            continue
        label = f"provider {provider.name}"
        try:
            provider.require_usable()
        except BridgeError as error:
            yield Finding(label, "bad", error.message, error.remedy)
        else:
            yield Finding(label, "ok", f"{provider.model} at {provider.server.address}")


def _plugins(loaded: LoadedSettings) -> Iterator[Finding]:
    for plugin in check_plugins(loaded):
        label = f"{_PLUGIN_LABELS[plugin.group]} {plugin.name}"
        if not plugin.reason:
            yield Finding(label, "ok", plugin.distribution)
        else:
            package = f"{plugin.distribution}: " if plugin.distribution else ""
            remedy = (
                f"Correct the module, or remove it from actors in {loaded.workspace.settings_file}."
                if plugin.distribution == loaded.workspace.settings_file.name
                else "Upgrade or uninstall its package."
                if plugin.distribution
                else "Install the package that has it, or correct the name."
            )
            yield Finding(label, "bad" if plugin.needed else "note", f"{package}{plugin.reason}", remedy)


def _store(loaded: LoadedSettings) -> Iterator[Finding]:
    pid = running_pid(loaded.workspace)
    if loaded.embedded_store:
        try:
            yield Finding("store binary", "ok", str(find_binary()))
        except BridgeError as error:
            yield Finding("store binary", "bad", error.message, error.remedy)
            return
    url = mask_password(loaded.store_url)
    store = Store.open(loaded, timeout_s=min(2.0, loaded.settings.store_timeout_s))
    try:
        information = _information(store)
    except BridgeError as error:
        expected = loaded.embedded_store and pid is None and isinstance(error, StoreUnreachable)
        remedy = "Start it with '3ox up'." if expected else error.remedy
        yield Finding(
            "store", "note" if expected else "bad", "not running" if expected else error.message, remedy
        )
        # Which types a user's actors have is known when a worker has published them.
        if not check_plugins(loaded, ["actors"]):
            yield from _unknown_types(loaded, TypeDirectory())
        return
    yield from _store_findings(url, information)
    yield from _workers(loaded, store)
    yield from _job_types(loaded, store)
    yield from _left_files(loaded, store)
    store.close()


def _bridge(loaded: LoadedSettings) -> Iterator[Finding]:
    pid = running_pid(loaded.workspace)
    if pid is None:
        yield Finding("bridge", "note", "not up", "Start it with '3ox up'.")
        return
    yield Finding("bridge", "ok", f"up, pid {pid}")
    state = read_state(loaded.workspace)
    for program in () if state is None else state.programs:
        if not program.ready and program.restarts:
            said = f"; last output: {program.said}" if program.said else ""
            found = f"keeps restarting, {program.restarts} times so far{said}"
            yield Finding(program.name, "bad", found, "See 3ox.log; restart with '3ox down' and '3ox up'.")


def _information(store: Any) -> dict[str, str]:
    text = store.call("INFO").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _store_findings(url: str, information: Mapping[str, str]) -> Iterator[Finding]:
    name = information.get("server_name", "redis")
    version = information.get("valkey_version", information.get("redis_version", "0"))
    found = f"{name} {version} at {url}"
    if int(version.split(".")[0]) < STORE_MAJOR_MIN:
        yield Finding("store", "bad", found, "Use Redis 7 or Valkey, or later.")
    else:
        yield Finding("store", "ok", found)
    policy = information.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(
            "store memory",
            "bad",
            f"maxmemory-policy is {policy}: it may drop jobs",
            "Set maxmemory-policy noeviction.",
        )
    if information.get("aof_enabled") == "0":
        yield Finding(
            "store durability",
            "note",
            "no append-only file: a crash of the store loses jobs",
            "Set appendonly yes.",
        )


def _job_types(loaded: LoadedSettings, store: Any) -> Iterator[Finding]:
    types = TypeDirectory(Reader(store, loaded.settings.key_prefix).published_types)
    yield from _unknown_types(loaded, types)


def _unknown_types(loaded: LoadedSettings, types: TypeDirectory) -> Iterator[Finding]:
    """A schedule or endpoint of a type that no worker carries: its jobs would be refused."""
    wanted = {f"schedule {row.id}": str(row.job.get("job_type")) for row in loaded.settings.schedule}
    wanted |= {f"endpoint {name}": row.job for name, row in loaded.settings.rest.endpoints.items()}
    for label, job_type in wanted.items():
        try:
            types.require(job_type)
        except InvalidJob as error:
            remedy = f"{error.remedy} Or start the worker that carries it: it publishes the type."
            yield Finding(label, "bad", error.message, remedy)


def _left_files(loaded: LoadedSettings, store: Any) -> Iterator[Finding]:
    folder = left_in_drop_folder(Bridge(loaded, store=store))
    if folder["left"]:
        yield Finding(
            "drop folder",
            "note",
            f"{folder['left']} not ingested: {'; '.join(folder['names'])}",
            "Rename or remove them, or change ignore and dot_files of [station] in 3ox.toml.",
        )


def _workers(loaded: LoadedSettings, store: Any) -> Iterator[Finding]:
    keys = Keys(loaded.settings.key_prefix)
    seconds, micros = store.call("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    known = store.call("ZRANGE", keys.workers, 0, -1, "WITHSCORES")
    leases_ms = dict(zip(known[::2], (float(score) for score in known[1::2]), strict=True))
    alive = sum(lease_ms > now_ms for lease_ms in leases_ms.values())
    late = len(leases_ms) - alive
    if alive == 0:
        yield Finding("workers", "note", "none", "Start some with '3ox up' or '3ox worker'.")
    else:
        yield Finding("workers", "ok", f"{alive} running")
    if late:
        yield Finding(
            "lost workers",
            "note",
            f"{late} without a heartbeat for {loaded.settings.lease_s:g} s",
            "Other workers take over their jobs.",
        )
