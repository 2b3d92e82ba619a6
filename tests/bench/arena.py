"""A place to measure one contestant in: a new store and two worker processes, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.errors import StartFailed
from ops.settings.load import load_settings
from ops.store.client import Store
from tests.bench.contestants import Contestant, make_contestant
from tests.bench.job import SOCKET_VARIABLE, make_nonce
from tests.support import ROOT, RunningValkey, clean_environ

PROCESSES = 2
THREADS = 8
_BOOT_S = 30.0
_STOP_S = 10.0
_WARM_JOBS = 64


class Arena:
    """Store, workers and contestant; a context manager that leaves nothing behind.

    All contestants get the same server binary with the configuration that the product gives it (append-only
    file, fsync every second), a unix socket, and ``dramatiq MODULE -p 2 -t 8``.

    Args:
        name: Of the contestant.
    """

    def __init__(self, name: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="3ox-bench-"))
        self._loaded = load_settings(self._folder, environ={})
        self._valkey = RunningValkey(self._loaded)
        self._workers: subprocess.Popen[bytes] | None = None
        self._name = name
        self._sent = 0
        self.store = Store(self._valkey.url)
        self.probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.contestant: Contestant

    def __enter__(self) -> Self:
        """Start everything and wait until it is warm."""
        try:
            self._valkey.start()
            probe_path = str(self._folder / "probe.sock")
            self.probe.bind(probe_path)
            self.probe.settimeout(_BOOT_S)
            self.contestant = make_contestant(self._name, self._loaded, self._valkey.url)
            self._start_workers(probe_path)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and remove the data."""
        self._clean_up()

    def _start_workers(self, probe_path: str) -> None:
        argv = [sys.executable, "-m", "dramatiq", self.contestant.module]
        environ = clean_environ({**self.contestant.environ, SOCKET_VARIABLE: probe_path})
        with (self._folder / "workers.txt").open("wb") as said:
            self._workers = subprocess.Popen(
                [*argv, "-p", str(PROCESSES), "-t", str(THREADS)],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._await(lambda: self.contestant.workers_ready(self.store) >= PROCESSES, "did not boot")
        for number in range(_WARM_JOBS):
            self.send(f"warm-{number}")
        self._await(lambda: self.unfinished() == 0, "did not end the first jobs")

    def _await(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline_s = time.monotonic() + _BOOT_S
        while not condition():
            ended = self._workers is None or self._workers.poll() is not None
            if ended or time.monotonic() > deadline_s:
                said = (self._folder / "workers.txt").read_text(errors="replace")
                raise StartFailed(f"the workers of {self._name!r} {complaint}:\n{said[-2000:]}")
            time.sleep(0.02)

    def send(self, text: str) -> None:
        """Enqueue one job."""
        self._sent += 1
        self.contestant.send(make_nonce(text))

    def send_and_wait(self, text: str) -> None:
        """Enqueue one job and wait for its result."""
        self._sent += 1
        self.contestant.send_and_wait(make_nonce(text))

    def unfinished(self) -> int:
        """Count the jobs whose end is not committed yet."""
        return self.contestant.unfinished(self.store, self._sent)

    def pause(self) -> None:
        """Freeze the workers where they are."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._workers is not None and self._workers.poll() is None:
            os.killpg(self._workers.pid, number)

    def info(self, section: str) -> dict[str, int]:
        """Return the integers of a section of the store's INFO."""
        text: bytes = self.store.call("INFO", section)
        pairs = (line.partition(":") for line in text.decode().splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdecimal()}

    def worker_cpu_s(self) -> float | None:
        """Return the processor time that the workers have taken, in seconds; None where /proc is missing."""
        if self._workers is None or not Path("/proc/self/stat").exists():
            return None
        session, ticks = str(self._workers.pid), 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # The name, in brackets, may itself hold spaces and brackets; see proc_pid_stat(5).
                fields = stat.read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12]) if fields[3] == session else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    def _clean_up(self) -> None:
        # Asked first: Dramatiq's master removes its named semaphores only on an orderly end.
        if self._workers is not None:
            if self._workers.poll() is None:
                self._workers.terminate()
                self.resume()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._workers.wait(_STOP_S)
            # As a rule the whole group has ended by now.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._workers.pid, signal.SIGKILL)
            self._workers.wait(_STOP_S)
        self.probe.close()
        self.store.close()
        if hasattr(self, "contestant"):
            self.contestant.close()
        self._valkey.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
