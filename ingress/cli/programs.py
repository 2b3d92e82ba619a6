"""The programs that ``3ox up`` runs, and how each is known to be ready."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import sys
from pathlib import Path

from actors.llm.model_library import needed_protocols
from cmd_bridge import own_argv
from ingress.cli.plugin_checks import check_plugins
from ingress.core.daemon import ready_file
from middleware.job.keys import LLM_QUEUE, Keys
from ops.errors import SettingsError, StoreUnreachable
from ops.plugins import BrokenPlugin, log_broken
from ops.processes import descendants
from ops.settings.load import LoadedSettings
from ops.store.client import Store
from ops.store.embedded import EmbeddedValkey
from ops.supervision.program import Program, Readiness

#: Interval at which a new worker or daemon is looked for, since neither sends an event.
_POLL_S = 0.02
#: A worker ends up to this much later than its jobs: Dramatiq's loops wake once a second.
_WORKER_STOP_SLACK_S = 5.0
_STORE_STOP_TIMEOUT_S = 10.0
#: Free space for compiled modules (30 MB) in the workspace.
_BYTECODE_FREE_MIN_BYTES = 256 * 1024 * 1024
#: Packages whose modules take longest to compile; some are extras.
_LARGE_PACKAGES = ("dramatiq", "litestar", "redis", "pydantic_ai", "openai", "anthropic", "telegram")


def bridge_programs(loaded: LoadedSettings, store: EmbeddedValkey | None) -> list[Program]:
    """Return the programs that ``3ox up`` runs, in the order in which they start.

    Args:
        loaded: Settings and workspace.
        store: The embedded store, prepared; None if the settings name another store.
    """
    programs = [] if store is None else [store_program(store)]
    programs.append(watchdog_program(loaded))
    model_unit = has_model_unit(loaded)
    if model_unit:
        # Before the others: it takes longest, since it imports the model library.
        programs.append(worker_program(loaded, LLM_QUEUE, first=False, queue=LLM_QUEUE))
    programs += [
        worker_program(loaded, f"worker-{number}", first=number == 1, asks_models=not model_unit)
        for number in range(1, loaded.settings.workers + 1)
    ]
    programs += [daemon_program(loaded, name, command) for name, command in daemon_commands(loaded)]
    return programs + plugin_programs(loaded)


def has_model_unit(loaded: LoadedSettings) -> bool:
    """Return whether a unit of its own asks language models: a provider that needs it is configured."""
    return needed_protocols(loaded.settings.ask) != []


def daemon_commands(loaded: LoadedSettings) -> list[tuple[str, str]]:
    """Return name and command of each interface daemon that the settings ask for."""
    commands = [("station", "serve"), ("rest", "rest"), ("clock", "clock")]
    if loaded.settings.telegram_token:
        require_telegram(loaded)
        commands.append(("telegram", "telegram"))
    return commands


def plugin_programs(loaded: LoadedSettings) -> list[Program]:
    """Return the programs of the ingress adapters of installed packages; log those that are broken."""
    programs = []
    for plugin in check_plugins(loaded, ["ingress"]):
        if plugin.reason:
            log_broken(BrokenPlugin(plugin.group, plugin.name, plugin.distribution, plugin.reason))
        else:
            programs.append(daemon_program(loaded, plugin.name, "ingress", plugin.name, optional=True))
    return programs


def require_telegram(loaded: LoadedSettings) -> None:
    """Check that a Telegram bot can run.

    Raises:
        SettingsError: The token is missing, or python-telegram-bot is not installed.
    """
    from importlib.util import find_spec

    if not loaded.settings.telegram_token:
        raise SettingsError(
            "The Telegram bot has no token.",
            remedy="Set telegram_token in 3ox.toml, or BRIDGE_TELEGRAM_TOKEN, to the token from @BotFather.",
        )
    if find_spec("telegram") is None:
        raise SettingsError(
            "The package python-telegram-bot is not installed.", remedy="pip install 'cmd-bridge[telegram]'"
        )


def daemon_program(loaded: LoadedSettings, name: str, *command: str, optional: bool = False) -> Program:
    """Return the program of an interface daemon, ``3ox COMMAND``.

    Args:
        loaded: Settings and workspace.
        name: The daemon's name, see ``ingress.core.daemon``.
        *command: Command of ``3ox`` that runs it.
        optional: Whether the bridge is ready without it.
    """
    file = ready_file(loaded.workspace, name)

    async def ready(pid: int) -> Readiness:
        while True:
            with contextlib.suppress(FileNotFoundError):
                if file.read_text() == str(pid):
                    return Readiness()
            await asyncio.sleep(_POLL_S)

    return Program(
        name=name,
        argv=own_argv(*command),
        env=_environment(loaded),
        cwd=loaded.workspace.run_dir,
        ready=ready,
        optional=optional,
    )


def store_program(store: EmbeddedValkey) -> Program:
    """Return the program of the embedded store, which must be prepared."""

    async def ready(_pid: int) -> Readiness:
        await store.ready()
        return Readiness()

    return Program(
        name="store",
        argv=store.argv,
        pass_fds=store.pass_fds,
        ready=ready,
        gate=True,
        stop_timeout_s=_STORE_STOP_TIMEOUT_S,
    )


def watchdog_program(loaded: LoadedSettings) -> Program:
    """Return the watchdog, which acts for this host's workers when they cannot."""
    return Program(
        name="watchdog",
        argv=own_argv("-m", "middleware.broker.watchdog"),
        env=_environment(loaded),
        cwd=loaded.workspace.run_dir,
        # Stopped after the workers, so that it also covers workers that die while they stop.
        gate=True,
    )


def worker_program(
    loaded: LoadedSettings,
    name: str,
    *,
    restart: bool = True,
    first: bool = True,
    asks_models: bool = True,
    queue: str = "",
) -> Program:
    """Return the program of one worker unit: Dramatiq's command with one worker process.

    The command shuts down as a whole when one of its worker processes dies, hence one process each.

    Args:
        loaded: Settings and workspace.
        name: Name of the unit.
        restart: Whether the supervisor restarts it when it ends.
        first: Whether it logs the plug-ins that are broken; the others of a bridge have the same.
        asks_models: Whether it consumes the queue of jobs that ask a model; else another unit does.
        queue: The only queue that it consumes; empty for those of all actors.
    """
    settings = loaded.settings
    registry = WorkerRegistry(loaded)
    return Program(
        name=name,
        argv=[
            *own_argv("-m", "dramatiq", "actors", "-p", "1", "-t", str(settings.threads)),
            # How long Dramatiq's master waits, in ms, for a worker that died while it booted.
            *("--worker-fork-timeout", "2000"),
            *("--worker-shutdown-timeout", str(round(settings.worker_shutdown_timeout_s * 1000))),
            *(("--queues", queue) if queue else ()),
        ],
        env=_environment(loaded)
        | ({} if first else {"BRIDGE_PLUGINS_LOGGED": "1"})
        | ({} if asks_models else {"BRIDGE_LEFT_QUEUES": LLM_QUEUE}),
        # Dramatiq puts the working directory first on Python's path: it must be one that only we write to.
        cwd=loaded.workspace.run_dir,
        ready=registry.ready,
        stop_timeout_s=settings.worker_shutdown_timeout_s + _WORKER_STOP_SLACK_S,
        restart=restart,
    )


def _environment(loaded: LoadedSettings) -> dict[str, str]:
    """Return what each program has in its environment in addition to the supervisor's."""
    environ = {"BRIDGE_HOME": str(loaded.workspace.home)}
    free_bytes = shutil.disk_usage(loaded.workspace.home).free
    if sys.dont_write_bytecode and free_bytes > _BYTECODE_FREE_MIN_BYTES and not _is_compiled():
        # Without bytecode every restart compiles some 600 modules: 2 s instead of 0.6 s for the REST API. It
        # is kept in our private directory, since the user does not want it beside the sources.
        environ["PYTHONDONTWRITEBYTECODE"] = ""
        environ["PYTHONPYCACHEPREFIX"] = str(loaded.workspace.state_dir / "bytecode")
    return environ


def _is_compiled() -> bool:
    """Return whether the installation has been compiled, as ``make run`` does: ours and large packages.

    To keep bytecode elsewhere would then compile all again, for the first start in each workspace.
    """
    specs = [importlib.util.find_spec(name) for name in ("ingress.cli.programs", *_LARGE_PACKAGES)]
    sources = [spec.origin for spec in specs if spec is not None and spec.origin is not None]
    return all(Path(importlib.util.cache_from_source(source)).exists() for source in sources)


class WorkerRegistry:
    """Finds this host's workers in the store.

    Args:
        loaded: Settings that name the store.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._keys = Keys(loaded.settings.key_prefix)

    async def ready(self, unit_pid: int) -> Readiness:
        """Wait until the worker process of a unit has registered itself.

        Args:
            unit_pid: Process id of the unit, which is Dramatiq's master.
        """
        store = Store.open(self._loaded)
        try:
            while True:
                found = await asyncio.to_thread(self._find, store, unit_pid)
                if found is not None:
                    return found
                await asyncio.sleep(_POLL_S)
        finally:
            store.close()

    def _find(self, store: Store, unit_pid: int) -> Readiness | None:
        try:
            registered = self._registered(store)
        except StoreUnreachable:
            # The embedded store is restarting, or another store is unavailable: wait for it.
            return None
        family = {unit_pid, *descendants(unit_pid)}
        for worker_id, pid in registered.items():
            if pid in family:
                return Readiness(pids=(pid,), marks=(("BRIDGE_WORKER_ID", worker_id),))
        return None

    def _registered(self, store: Store) -> dict[str, int]:
        worker_ids = [name.decode() for name in store.call("ZRANGE", self._keys.workers, 0, -1)]
        if not worker_ids:
            return {}
        asked = [("HMGET", self._keys.heartbeat(worker_id), "host", "pid") for worker_id in worker_ids]
        ours = socket.gethostname().encode()
        replies = store.pipeline(asked)
        return {
            worker_id: int(pid)
            for worker_id, (host, pid) in zip(worker_ids, replies, strict=True)
            if host == ours and pid is not None
        }
