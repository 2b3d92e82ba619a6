"""Real worker processes for tests: `dramatiq actors`, started, watched and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingress.dispatch import Bridge
from ops.processes import descendants, find_marked, stop_processes
from tests.support import eventually


class Worker:
    """One `dramatiq actors` with one worker process.

    Args:
        process: Dramatiq's master.
        bridge: To look the worker up.

    Attributes:
        worker_id: Under which the store knows it.
        pid: Of the process that runs the jobs; a child of the master.
    """

    def __init__(self, process: subprocess.Popen[bytes], bridge: Bridge) -> None:
        self.process = process
        self._bridge = bridge
        found = eventually(self._find, 30.0)
        assert found is not None
        self.worker_id, self.pid = found

    def _find(self) -> tuple[str, int] | None:
        assert self.process.poll() is None, "the worker ended at its start"
        family = set(descendants(self.process.pid))
        for item in known_workers(self._bridge):
            pid = int(item.rsplit("-", 2)[1])
            if pid in family:
                return item, pid
        return None

    def kill(self) -> None:
        """End the worker process with SIGKILL, as the kernel does when memory runs out."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.terminate()

    def wait(self, timeout_s: float = 15.0) -> int:
        """Wait for its end."""
        return self.process.wait(timeout_s)


def known_workers(bridge: Bridge) -> list[str]:
    """List the workers that the store knows."""
    return [item.decode() for item in bridge.store.call("ZRANGE", bridge.reader.keys.workers, 0, -1)]


@contextlib.contextmanager
def worker_unit(
    environ: Mapping[str, str], *, threads: int = 4, name: str = "worker", module: str = "actors"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Dramatiq with one worker process for the time of a block; it and its children are killed then.

    Args:
        environ: Its whole environment.
        threads: Jobs at a time.
        name: Of its unit; its own output goes to a file of this name in the workspace.
        module: Where Dramatiq finds the broker.
    """
    home = Path(environ["BRIDGE_HOME"])
    with (home / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dramatiq",
                module,
                "-p",
                "1",
                "-t",
                str(threads),
                "--worker-fork-timeout",
                "2000",
            ],
            env={**environ, "BRIDGE_UNIT": name},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Dramatiq needs three seconds to stop in order, in steps of one: a test of that tells it to by itself.
    for pid in [process.pid, *descendants(process.pid)] if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10.0)


@contextlib.contextmanager
def running_worker(
    bridge: Bridge,
    environ: Mapping[str, str],
    *,
    threads: int = 4,
    name: str = "worker",
    module: str = "actors",
) -> Iterator[Worker]:
    """Run a worker, as ``worker_unit`` does, that the store knows already when the block begins.

    What it has in hand when the block ends counts a crash; for an orderly stop, ``terminate`` and ``wait``.
    """
    with worker_unit(environ, threads=threads, name=name, module=module) as process:
        yield Worker(process, bridge)


def sweep(environ: Mapping[str, str]) -> None:
    """Stop everything that still runs for this workspace: the watchdog, and children of killed workers."""
    home = environ["BRIDGE_HOME"]
    stop_processes(
        lambda: [pid for pid in find_marked("BRIDGE_HOME", home) if pid != os.getpid()], grace_s=1.0
    )
