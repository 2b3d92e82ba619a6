"""The programs of a bridge: what ``3ox up`` runs and how it is seen that each of them serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from middleware.job.keys import Keys
from ops.errors import SettingsError, StoreUnreachable
from ops.settings.load import LoadedSettings
from ops.store.client import Store
from ops.supervision.program import Program, Readiness

if TYPE_CHECKING:
    from ops.store.embedded import EmbeddedValkey

#: How often it is asked whether a new worker or daemon has registered itself; there is no event for that.
_ASK_AGAIN_S = 0.02
#: A worker ends a little later than its jobs: Dramatiq's loops wake once a second.
_WORKER_STOP_SLACK_S = 5.0
_STORE_STOP_TIMEOUT_S = 10.0


def bridge_programs(loaded: LoadedSettings, store: EmbeddedValkey | None) -> list[Program]:
    """Give everything that ``3ox up`` runs, in the order of its start.

    Args:
        loaded: Settings and workspace.
        store: The embedded store, prepared; None if the settings name another one.
    """
    programs = [] if store is None else [store_program(store)]
    programs.append(watchdog_program(loaded))
    programs += [
        worker_program(loaded, f"worker-{number}") for number in range(1, loaded.settings.workers + 1)
    ]
    return programs + [daemon_program(loaded, name, command) for name, command in daemon_commands(loaded)]


def daemon_commands(loaded: LoadedSettings) -> list[tuple[str, str]]:
    """Give name and command of the ingress daemons that these settings ask for."""
    commands = [("station", "serve"), ("rest", "rest"), ("clock", "clock")]
    if loaded.settings.telegram_token:
        require_telegram(loaded)
        commands.append(("telegram", "telegram"))
    return commands


def require_telegram(loaded: LoadedSettings) -> None:
    """See to it that a Telegram bot can run.

    Raises:
        SettingsError: It has no token, or python-telegram-bot is not installed.
    """
    from importlib.util import find_spec

    if not loaded.settings.telegram_token:
        raise SettingsError(
            "there is no token for a Telegram bot.",
            remedy="Set telegram_token in 3ox.toml, or BRIDGE_TELEGRAM_TOKEN, to what @BotFather gave you.",
        )
    if find_spec("telegram") is None:
        raise SettingsError(
            "python-telegram-bot is not installed.", remedy="pip install 'cmd-bridge[telegram]'"
        )


def daemon_program(loaded: LoadedSettings, name: str, command: str) -> Program:
    """Give an ingress daemon: ``3ox COMMAND`` under the supervisor.

    Args:
        loaded: Settings and workspace.
        name: As it calls itself, see ``ingress.core.daemon``.
        command: Of ``3ox``.
    """
    from ingress.core.daemon import ready_file

    file = ready_file(loaded.workspace, name)

    async def ready(pid: int) -> Readiness:
        while True:
            with contextlib.suppress(FileNotFoundError):
                if file.read_text() == str(pid):
                    return Readiness()
            await asyncio.sleep(_ASK_AGAIN_S)

    return Program(
        name=name,
        argv=[sys.executable, "-m", "ingress.cli.main", command],
        env=_environment(loaded),
        cwd=loaded.workspace.run_dir,
        ready=ready,
    )


def store_program(store: EmbeddedValkey) -> Program:
    """Give the embedded store, which has to be prepared."""

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
        argv=[sys.executable, "-m", "middleware.broker.watchdog"],
        env=_environment(loaded),
        cwd=loaded.workspace.run_dir,
        # Stopped after the workers: one that dies while it stops is seen to as well.
        gate=True,
    )


def worker_program(loaded: LoadedSettings, name: str, *, restart: bool = True) -> Program:
    """Give one worker unit: Dramatiq's own command with one worker process.

    Its command shuts down as a whole when one of its worker processes dies, hence one process each.

    Args:
        loaded: Settings and workspace.
        name: Of the unit.
        restart: Whether the supervisor starts it again when it ends.
    """
    settings = loaded.settings
    registry = WorkerRegistry(loaded)
    return Program(
        name=name,
        argv=[
            *(sys.executable, "-m", "dramatiq", "actors", "-p", "1", "-t", str(settings.threads)),
            # For so long Dramatiq's master waits for the sign of a worker that died while it booted.
            *("--worker-fork-timeout", "2000"),
            *("--worker-shutdown-timeout", str(round(settings.worker_shutdown_timeout_s * 1000))),
        ],
        env=_environment(loaded),
        # Python looks for modules in the working directory first, so it has to be one that only we write to.
        cwd=loaded.workspace.run_dir,
        ready=registry.ready,
        stop_timeout_s=settings.worker_shutdown_timeout_s + _WORKER_STOP_SLACK_S,
        restart=restart,
    )


def _environment(loaded: LoadedSettings) -> dict[str, str]:
    """Give what each program of ours has in its environment beside the supervisor's."""
    environ = {"BRIDGE_HOME": str(loaded.workspace.home)}
    if sys.dont_write_bytecode:
        # Without it every restart compiles some 600 modules: 2 s instead of 0.6 s for the REST API. It is
        # kept in our own private directory: nothing is written where somebody did not want it.
        environ["PYTHONDONTWRITEBYTECODE"] = ""
        environ["PYTHONPYCACHEPREFIX"] = str(loaded.workspace.state_dir / "bytecode")
    root = Path(__file__).resolve().parents[2]
    if root.name not in {"site-packages", "dist-packages"}:
        known = os.environ.get("PYTHONPATH", "")
        environ["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else str(root)
    return environ


class WorkerRegistry:
    """Finds the workers of this machine in the store.

    Args:
        loaded: Says where the store is.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._keys = Keys(loaded.settings.key_prefix)

    async def ready(self, unit_pid: int) -> Readiness:
        """Wait until the worker process of a unit has registered itself.

        Args:
            unit_pid: Process id of the unit: of Dramatiq's master.
        """
        store = Store.open(self._loaded)
        try:
            while True:
                found = await asyncio.to_thread(self._find, store, unit_pid)
                if found is not None:
                    return found
                await asyncio.sleep(_ASK_AGAIN_S)
        finally:
            store.close()

    def _find(self, store: Store, unit_pid: int) -> Readiness | None:
        from ops.processes import descendants

        try:
            registered = self._registered(store)
        except StoreUnreachable:
            # A store of its own is on the way up again; another one is waited for like that too.
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
