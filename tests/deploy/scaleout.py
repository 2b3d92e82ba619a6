"""Three hosts, one of them cut off from the others for a while: what became of the jobs.

``store`` has the store and the doors (``3ox up --workers 0``), ``left`` and ``right`` have one worker each
(``3ox worker``). They share nothing but the network; settings and projects are the same on all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from ingress.dispatch import Bridge
from middleware.job.records import Receipt
from middleware.job.states import FINAL
from ops.processes import find_marked, stop_processes
from ops.settings.load import load_settings
from ops.store.embedded import find_binary
from tests.deploy.hosts import Host, Network, network
from tests.support import clean_environ, eventually, threeox

THREADS = 8


class Plan(Struct, frozen=True):
    """How it runs.

    Attributes:
        lease_s: Setting of the same name.
        store_timeout_s: Setting of the same name.
        task_s: How long a task takes.
        per_s: Tasks a second.
        before_s: Load before the cut.
        cut_s: How long the host is cut off, longer than the lease.
        after_s: Load after it is back.
    """

    lease_s: float = 15.0
    store_timeout_s: float = 5.0
    task_s: float = 2.0
    per_s: float = 3.0
    before_s: float = 10.0
    cut_s: float = 30.0
    after_s: float = 20.0

    @property
    def count(self) -> int:
        """How many tasks are commanded."""
        return round(self.per_s * (self.before_s + self.cut_s + self.after_s))


SHORT = Plan(lease_s=2.0, store_timeout_s=1.0, task_s=1.0, per_s=6.0, before_s=1.5, cut_s=3.5, after_s=2.0)


class Figures(Struct, kw_only=True):
    """What became of the tasks; times in seconds by the clock of the machine.

    Attributes:
        accepted: Had a receipt from the API.
        completed: Of these.
        lost: Of these; unknown to the store or not ended.
        committed_twice: Receipts with more than one end.
        on_left, on_right: Tasks that each host completed.
        in_hand: Tasks that the cut-off host had when it was cut off.
        elsewhere_s: From the cut to the start of each of these on the other host.
        refused: Results of the cut-off host that came too late, as its log says.
        started_twice: Tasks that ran more than once, as they themselves noted it.
        unexplained: Of these, those that had not been in hand.
        during_wait_s: Of tasks commanded while the host was cut off: from the queue to the start.
        back_s: From the cable's return to the first task that the host took again.
    """

    accepted: int
    completed: int
    lost: int
    committed_twice: int
    on_left: int
    on_right: int
    in_hand: int
    elsewhere_s: list[float]
    refused: int
    started_twice: int
    unexplained: int
    during_wait_s: list[float]
    back_s: float

    @property
    def faults(self) -> list[str]:
        """What must not be, one line each."""
        never = ("lost", "committed_twice", "unexplained")
        found = [f"{name}: {getattr(self, name)}" for name in never if getattr(self, name)]
        if self.completed != self.accepted:
            found.append(f"{self.accepted - self.completed} of {self.accepted} tasks are not completed")
        if not self.in_hand:
            found.append("the host had nothing in hand when it was cut off: nothing was shown")
        return found


class ScaleOut:
    """One run.

    Args:
        plan: How it runs.
        folder: An empty folder for all files.
        say: Tells what goes on.
    """

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], object]) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._token = secrets.token_hex(16)
        self._password = secrets.token_hex(16)
        self._notes = folder / "notes"
        self._hosts_processes: list[subprocess.Popen[bytes]] = []

    def carry_out(self) -> Figures:
        """Run it.

        Raises:
            StartFailed: Namespaces cannot be made here.
        """
        with network(["store", "left", "right"]) as (cables, (store, left, right)), self._store(store):
            environs = {host.name: self._prepare(host, store) for host in (store, left, right)}
            bridge = Bridge(
                load_settings(
                    self._folder / "store",
                    environ={**environs["store"], "BRIDGE_REDIS_URL": self._observer_url},
                )
            )
            with contextlib.ExitStack() as running:
                doors = ("up", "--workers", "0")
                for host, command in ((store, doors), (left, ("worker",)), (right, ("worker",))):
                    running.enter_context(self._running(host, environs[host.name], *command))
                try:
                    return self._load(cables, store, right, bridge, self._wait_ready(bridge))
                finally:
                    # All at once, which is sooner done than one after the other.
                    for process in self._hosts_processes:
                        process.terminate()

    @property
    def _observer_url(self) -> str:
        return f"unix://:{self._password}@{self._folder / 'valkey.sock'}"

    @contextlib.contextmanager
    def _store(self, host: Host) -> Iterator[None]:
        """Run a store that others may reach, with a password; we look in through its unix socket."""
        data = self._folder / "data"
        data.mkdir()
        lines = {
            "bind": host.address,
            "requirepass": self._password,
            "dir": data,
            "unixsocket": self._folder / "valkey.sock",
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "save": '""',
        }
        config = self._folder / "valkey.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        with self._process(host, {}, str(find_binary()), str(config), name="valkey"):
            eventually((self._folder / "valkey.sock").exists)
            yield

    def _prepare(self, host: Host, store: Host) -> dict[str, str]:
        """Create a host's workspace and return its environment."""
        home = self._folder / host.name
        home.mkdir()
        task = f"echo start $BRIDGE_JOB_ID >> {self._notes}; sleep {self._plan.task_s:g}; uname -n"
        (home / "3ox.toml").write_text(
            f"[projects.note]\npath = '{self._folder}'\ncommand = ['sh', '-c', '{task}', '{{task}}']\n"
            "[[policy]]\nsource = 'rest'\njob_type = 'task.custom'\neffect = 'allow'\n"
        )
        return clean_environ(
            {
                "BRIDGE_HOME": str(home),
                "BRIDGE_REDIS_URL": f"redis://:{self._password}@{store.address}:6379/0",
                "BRIDGE_API_TOKEN": self._token,
                "BRIDGE_API_PORT": "0",
                "BRIDGE_THREADS": str(THREADS),
                "BRIDGE_LEASE_S": str(self._plan.lease_s),
                "BRIDGE_HEARTBEAT_S": str(self._plan.lease_s / 3),
                "BRIDGE_STORE_TIMEOUT_S": str(self._plan.store_timeout_s),
            },
        )

    @contextlib.contextmanager
    def _running(self, host: Host, environ: dict[str, str], *command: str) -> Iterator[None]:
        with self._process(host, environ, *threeox(*command), name=f"{host.name}-{command[0]}") as process:
            self._hosts_processes.append(process)
            yield
        home = environ["BRIDGE_HOME"]
        stop_processes(lambda: list(find_marked("BRIDGE_HOME", home)), grace_s=2.0)

    @contextlib.contextmanager
    def _process(
        self, host: Host, environ: dict[str, str], *argv: str, name: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        with (self._folder / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                host.command(*argv),
                env=environ if environ else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10.0)

    def _wait_ready(self, bridge: Bridge) -> str:
        """Wait for both workers and the API; return the API's address."""
        place = bridge.loaded.workspace.run_dir / "rest.url"

        def workers() -> bool:
            known = bridge.store.call("ZRANGE", bridge.reader.keys.workers, 0, -1)
            return {_host_of(name.decode()) for name in known} == {"left", "right"}

        eventually(workers, 60.0, every_s=0.05)
        eventually(place.exists, 60.0, every_s=0.05)
        return place.read_text()

    def _load(self, cables: Network, store: Host, lonely: Host, bridge: Bridge, url: str) -> Figures:
        plan = self._plan
        self._say(f"three hosts are up; {plan.count} tasks of {plan.task_s:g} s, {plan.per_s:g} a second")
        argv = [sys.executable, "-m", "tests.deploy.feeder"]
        argv += [url, self._token, str(plan.count), str(plan.per_s)]
        with (self._folder / "accepted").open("w") as accepted:
            feeder = subprocess.Popen(store.command(*argv), env=clean_environ(), stdout=accepted)
        try:
            time.sleep(plan.before_s)  # load that all hosts share; how long is what is laid down
            eventually(lambda: self._in_hand(bridge, lonely) > 1)
            cables.cut(lonely)
            cut_s = time.time()
            self._say(f"{lonely.name} is cut off")
            time.sleep(plan.cut_s)  # the duration of the outage is what is tested
            cables.mend(lonely)
            back_s = time.time()
            self._say(f"{lonely.name} is back")
            assert feeder.wait(plan.count / plan.per_s + 60.0) == 0, "the API refused a task"
        finally:
            if feeder.poll() is None:
                feeder.kill()
                feeder.wait(10.0)
        rows = [line.split() for line in (self._folder / "accepted").read_text().splitlines()]
        receipts = {job_id: float(at_s) for job_id, at_s in rows}
        pause_s = max(60.0, plan.count * plan.task_s / THREADS)
        with contextlib.suppress(AssertionError):
            eventually(lambda: self._all_ended(bridge, list(receipts)), pause_s, every_s=0.1)
        return self._account(bridge, receipts, lonely, cut_s, back_s)

    @staticmethod
    def _in_hand(bridge: Bridge, host: Host) -> int:
        known = [name.decode() for name in bridge.store.call("ZRANGE", bridge.reader.keys.workers, 0, -1)]
        ours = [name for name in known if _host_of(name) == host.name]
        return sum(bridge.store.call("HLEN", bridge.reader.keys.processing(name)) for name in ours)

    @staticmethod
    def _all_ended(bridge: Bridge, job_ids: Sequence[str]) -> bool:
        found = bridge.reader.read([("HGET", bridge.reader.keys.job(job_id), "status") for job_id in job_ids])
        return all(status is not None and status.decode() in FINAL for status in found)

    def _account(
        self, bridge: Bridge, accepted: dict[str, float], lonely: Host, cut_s: float, back_s: float
    ) -> Figures:
        statuses = {job_id: bridge.reader.status_of(job_id) for job_id in accepted}
        chains = {
            job_id: bridge.reader.receipt(job_id) for job_id, status in statuses.items() if status is not None
        }
        in_hand = [
            job_id for job_id, receipt in chains.items() if _held_at(receipt, lonely.name, cut_s, back_s)
        ]
        elsewhere = [_next_start_s(chains[job_id], cut_s) - cut_s for job_id in in_hand]
        during = [job_id for job_id, at_s in accepted.items() if cut_s < at_s < back_s and job_id in chains]
        starts = Counter(line.split()[1] for line in self._notes.read_text().splitlines())
        twice = [job_id for job_id, count in starts.items() if count > 1]
        ends = Counter(_host_of(str(receipt.worker_id)) for receipt in chains.values())
        again = [
            at_s
            for receipt in chains.values()
            for host, at_s in _starts(receipt)
            if host == lonely.name and at_s > back_s
        ]
        return Figures(
            accepted=len(accepted),
            completed=sum(status == "completed" for status in statuses.values()),
            lost=sum(status not in FINAL for status in statuses.values()),
            committed_twice=sum(_ends(receipt) > 1 for receipt in chains.values()),
            on_left=ends["left"],
            on_right=ends["right"],
            in_hand=len(in_hand),
            elsewhere_s=sorted(elsewhere),
            refused=self._refused(lonely),
            started_twice=len(twice),
            unexplained=len(set(twice) - set(in_hand)),
            during_wait_s=sorted(_wait_s(chains[job_id]) for job_id in during),
            back_s=min(again, default=float("inf")) - back_s,
        )

    def _refused(self, host: Host) -> int:
        lines = (self._folder / host.name / "3ox.log").read_text().splitlines()
        return sum(json.loads(line)["event"] == "job.superseded" for line in lines)


def _host_of(worker_id: str) -> str:
    return worker_id.rsplit("-", 2)[0]


def _at_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _starts(receipt: Receipt) -> list[tuple[str, float]]:
    return [
        (_host_of(str(line.worker_id)), _at_s(line.at))
        for line in receipt.transitions
        if line.status == "processing"
    ]


def _next_start_s(receipt: Receipt, after_s: float) -> float:
    return min((at_s for _, at_s in _starts(receipt) if at_s > after_s), default=float("inf"))


def _wait_s(receipt: Receipt) -> float:
    return _next_start_s(receipt, 0.0) - _at_s(receipt.transitions[0].at)


def _ends(receipt: Receipt) -> int:
    return sum(line.status in FINAL for line in receipt.transitions)


def _held_at(receipt: Receipt, host: str, cut_s: float, back_s: float) -> bool:
    """Return whether a task was with this host when it was cut off, and taken from it afterwards."""
    lines = receipt.transitions
    for line, after in itertools.pairwise(lines):
        held = line.status == "processing" and _host_of(str(line.worker_id)) == host
        if held and _at_s(line.at) <= cut_s < _at_s(after.at) <= back_s:
            return True
    return False
