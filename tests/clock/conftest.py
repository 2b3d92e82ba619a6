"""Candidates of an election, a bridge without workers, and schedulers as processes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect
from middleware.broker.leadership import Leadership
from middleware.broker.scripts import Scripts
from middleware.job.records import JobRecord
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from tests.support import eventually, threeox


class Election:
    """Leader election of one bridge."""

    def __init__(self, scripts: Scripts) -> None:
        self.scripts = scripts

    def candidate(self, name: str, *, lease_s: float = 3.0) -> Leadership:
        """Return a candidate."""
        return Leadership(self.scripts, name, lease_s=lease_s)

    @staticmethod
    def fence_of(candidate: Leadership) -> int:
        """Let a candidate claim the lease, which it must get; return its fencing token."""
        term = candidate.claim().term
        assert term is not None
        return term.fence

    def end_lease(self, *, at_ms: int = 0) -> None:
        """Set the end of the lease, by default to long ago."""
        self.scripts.store.call("HSET", f"{self.scripts.prefix}lead", "until", at_ms)

    def read(self, key: str) -> dict[str, str]:
        """Return a hash of the store."""
        flat = self.scripts.store.call("HGETALL", f"{self.scripts.prefix}{key}")
        return {flat[at].decode(): flat[at + 1].decode() for at in range(0, len(flat), 2)}

    def now_ms(self) -> int:
        """Return the store's time."""
        seconds, micros = self.scripts.store.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture
def election(valkey: str, prefix: str) -> Iterator[Election]:
    """An election without a leader yet."""
    store = Store(valkey)
    yield Election(Scripts(store, prefix))
    store.close()


@pytest.fixture
def own(loaded: LoadedSettings) -> Bridge:
    """A bridge of one test, without workers."""
    return connect(loaded)


def write_schedules(environ: Mapping[str, str], text: str) -> None:
    """Replace 3ox.toml, as an editor does."""
    file = Path(environ["BRIDGE_HOME"]) / "3ox.toml"
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


def runs_of(bridge: Bridge, schedule: str) -> list[JobRecord]:
    """Return the jobs of a schedule, by the time of their run."""
    page = bridge.reader.page(source="clock", limit=1000)
    assert page.next is None
    found = [job for job in page.jobs if job.metadata.get("schedule") == schedule]
    return sorted(found, key=lambda job: job.metadata["run_at"])


class ClockProcess:
    """A real ``3ox clock``.

    Args:
        environ: Its environment.
        bridge: To look it up.
    """

    def __init__(self, environ: Mapping[str, str], bridge: Bridge) -> None:
        output = (Path(environ["BRIDGE_HOME"]) / "clock.out").open("ab")
        self.process = subprocess.Popen(
            threeox("clock"), env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        output.close()
        self._bridge = bridge

    @property
    def leads(self) -> bool:
        """Whether it holds the lease."""
        holder = self._bridge.store.call("HGET", f"{self._bridge.scripts.prefix}lead", "holder")
        return holder is not None and f":{self.process.pid}:" in holder.decode()

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        ready = self._bridge.loaded.workspace.run_dir / "clock.ready"
        eventually(lambda: ready.exists() and ready.read_text() == str(self.process.pid), 20.0)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait(10.0)

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.terminate()
        return self.process.wait(10.0)


@contextlib.contextmanager
def running_clocks(
    environ: Mapping[str, str], bridge: Bridge, count: int = 1
) -> Iterator[list[ClockProcess]]:
    """Run schedulers within a block; one of them leads when it begins."""
    clocks: list[ClockProcess] = []
    try:
        for _ in range(count):
            clocks.append(ClockProcess(environ, bridge))
            clocks[-1].wait_ready()
        eventually(lambda: any(clock.leads for clock in clocks), 20.0)
        yield clocks
    finally:
        for clock in clocks:
            if clock.process.poll() is None:
                clock.kill()


__all__ = ["ClockProcess", "Election", "load_settings", "running_clocks", "runs_of", "write_schedules"]
