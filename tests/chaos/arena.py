"""The bridge under test: `3ox up` as anybody runs it, units of their own behind the proxy, and one daemon."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from ingress.dispatch import Bridge
from middleware.broker.vitals import read_vitals
from ops.errors import StartFailed
from ops.processes import marked, pid_alive, process_start_time, stop_processes
from ops.settings.load import load_settings
from ops.spool import Spool
from ops.supervision.state_file import read_state
from tests.chaos.keeper import Keeper
from tests.chaos.plan import Plan
from tests.chaos.proxy import Proxy
from tests.chaos.user_jobs import FILES
from tests.support import clean_environ, run_3ox, threeox

MARK = "CHAOS_RUN"
SETTINGS = """
actors = ["tests.chaos.user_jobs"]
store_port = {port}
store_fsync = "{fsync}"
lease_s = 5.0
heartbeat_s = 1.0
stall_s = 5.0
store_timeout_s = 1.0
worker_shutdown_timeout_s = 3.0
kill_grace_s = 0.5
# So many crashes would make an innocent job a dead letter, so much would be forgotten before it is counted.
max_crashes = 1000
events_max = 5_000_000
finished_max = 5_000_000
log_max_bytes = 100_000_000

[types."shell.cmd"]
max_retries = 100
backoff_min_s = 0.05
backoff_max_s = 0.5

[types.heartbeat]
max_retries = 100
backoff_min_s = 0.05
backoff_max_s = 0.5

[resources]
seat = 2
"""


class Worker(Struct, frozen=True):
    """A living worker process.

    Attributes:
        worker_id: Its name in the store.
        pid: Of the process that runs the jobs.
        master: Of Dramatiq's master above it.
        jobs: What it has in hand.
    """

    worker_id: str
    pid: int
    master: int
    jobs: list[str]


class Arena:
    """Starts everything, finds what can be hit, and leaves nothing behind.

    Args:
        plan: How many of what.
        folder: An empty directory of the run's own.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.files = folder / "files"
        self.mark = folder.name
        self.home = folder / "home"
        self.store_port = _free_port()
        self.proxy = Proxy(self.store_port)
        self.environ = clean_environ({"BRIDGE_HOME": str(self.home), MARK: self.mark, FILES: str(self.files)})
        self.behind = {**self.environ, "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}"}
        self.outside: list[Keeper] = []
        self.ingress: Keeper | None = None
        self.bridge: Bridge

    def start(self) -> None:
        """Start everything but the daemon; returns when all workers are ready."""
        self.home.mkdir()
        (self.files / "locks").mkdir(parents=True)
        settings = SETTINGS.format(port=self.store_port, fsync=self.plan.fsync)
        (self.home / "3ox.toml").write_text(settings)
        self.loaded = load_settings(environ=self.environ)
        self.workspace = self.loaded.workspace
        self.bridge = Bridge(self.loaded)
        self.proxy.start()
        self.up()
        for number in range(1, self.plan.proxied + 1):
            self.outside.append(Keeper(f"unit-{number}", self._outside_argv, self.behind, self.files))
        deadline_s = time.monotonic() + 60.0
        while len(self.workers()) < self.plan.units + self.plan.proxied:
            if time.monotonic() > deadline_s:
                raise StartFailed("the units behind the proxy did not start.", remedy=f"See {self.files}.")
            time.sleep(0.05)

    def _outside_argv(self) -> Sequence[str]:
        return threeox("worker", "--threads", str(self.plan.threads))

    def up(self) -> None:
        """Run ``3ox up``; returns when it is ready."""
        count = ("--workers", str(self.plan.units), "--threads", str(self.plan.threads))
        ran = run_3ox("up", "--detach", *count, environ=self.environ, timeout_s=90.0)
        if ran.returncode != 0:
            raise StartFailed(f"3ox up failed: {ran.stderr.strip()}")

    def open_the_door(self, until_s: float) -> None:
        """Start the daemon.

        Args:
            until_s: End of the load, in seconds since 1970.
        """
        starts = iter(range(1_000_000))

        def argv() -> list[str]:
            seed = self.plan.seed * 1000 + next(starts)
            return [
                *(sys.executable, "-m", "tests.chaos.ingress", "--seed", str(seed)),
                *("--rate", str(self.plan.jobs_per_s), "--until", str(until_s), "--files", str(self.files)),
                *("--longest", str(self.plan.longest_s)),
                *("--compositions", str(self.plan.compositions_per_s)),
            ]

        self.ingress = Keeper("ingress", argv, self.behind, self.files, until_success=True)

    def spool_count(self) -> int:
        """Count the jobs that wait in the spool."""
        spool = self.workspace.spool_dir
        return Spool(spool, max_bytes=1).count() if spool.is_dir() else 0

    def workers(self) -> list[Worker]:
        """Return the living workers, in the order of their start."""
        found: list[tuple[int, Worker]] = []
        for path in self.workspace.run_dir.glob("vitals-*/*"):
            try:
                signs = read_vitals(path)
            except (FileNotFoundError, StartFailed):
                continue
            master = _master_of(signs.pid) if pid_alive(signs.pid, signs.start_time) else None
            if master is not None:
                jobs = [job.job_id for job in signs.jobs]
                found.append((signs.start_time, Worker(path.name, signs.pid, master, jobs)))
        return [worker for _, worker in sorted(found, key=lambda item: item[0])]

    def program(self, name: str) -> int | None:
        """Return the process id of a program of ``3ox up``."""
        state = read_state(self.workspace)
        if state is None:
            return None
        return next((program.pid for program in state.programs if program.name == name), None)

    def supervisor(self) -> int | None:
        """Return the process id of ``3ox up``."""
        state = read_state(self.workspace)
        return None if state is None else state.pid

    def watchdogs(self) -> list[int]:
        """Return the process ids of all watchdogs."""
        return [pid for pid in self.everything() if b"middleware.broker.watchdog" in _command_line(pid)]

    def everything(self) -> list[int]:
        """Return the process ids of everything that this run has started, in whatever session."""
        return sorted(pid for pid, value in marked(MARK).items() if value == self.mark and pid_alive(pid))

    def children_of_jobs(self) -> list[int]:
        """Return the process ids of what jobs have started."""
        jobs = marked("BRIDGE_JOB_ID")
        return [pid for pid in self.everything() if pid in jobs]

    def stop(self) -> list[str]:
        """Stop everything in good order.

        Returns:
            The command lines of what was left after that, which has then been killed.
        """
        for keeper in (self.ingress, *self.outside):
            if keeper is not None:
                keeper.stop(10.0)
        if hasattr(self, "loaded"):
            run_3ox("down", environ=self.environ, timeout_s=60.0)
            self.bridge.store.close()
        left = [_command_line(pid).replace(b"\0", b" ").decode(errors="replace") for pid in self.everything()]
        self.sweep()
        self.proxy.stop()
        return left

    def sweep(self) -> None:
        """Kill whatever bears the mark of this run."""
        for keeper in (self.ingress, *self.outside):
            if keeper is not None:
                keeper.give_up()
        stop_processes(self.everything, grace_s=0.0)


def signal_process(pid: int, number: signal.Signals, start_time: int | None = None) -> bool:
    """Send a signal to a process that is still the one that was meant.

    Args:
        pid: Which.
        number: The signal.
        start_time: As ``process_start_time`` gave it.

    Returns:
        Whether it was there.
    """
    if start_time is not None and process_start_time(pid) != start_time:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _master_of(worker: int) -> int | None:
    """Return the Dramatiq process above a worker, if it is alive."""
    above = _parent(worker)
    # From Python 3.14 on, a worker is forked by a server that the master has started for it.
    if above is not None and b"multiprocessing.forkserver" in _command_line(above):
        above = _parent(above)
    # If the master has just been killed, the process that adopted the worker, `3ox up`, is not one.
    return above if above is not None and b"dramatiq" in _command_line(above) else None


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
