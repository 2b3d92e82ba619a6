"""The watchdog: one small process per host that acts for its workers when they cannot.

- It renews their leases, whatever a job does to its process: C code that holds the GIL, a busy loop.
- It notices a worker's death at once, through a pidfd and not a timeout: it ends the processes that the
  worker's jobs had started, then takes the jobs back. Only jobs that had started count a crash.
- It replaces a worker that is alive but no longer polls, that cannot reach a store which the watchdog
  reaches, or whose job has exceeded its time limit where Python could not stop it.

Runs as ``python -m middleware.broker.watchdog``; a second one for the same workspace and store exits at once.
It exits when it has had no worker for a while, unless a supervisor runs it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from middleware.broker.admission import make_scripts
from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from middleware.broker.started_processes import started_by
from middleware.broker.transitions import Settlement
from middleware.broker.vitals import VitalsReading, WatchdogPaths, read_vitals, watchdog_paths
from middleware.job.keys import Keys
from middleware.job.records import utc_now
from ops.backoff import Backoff
from ops.environment import variable
from ops.errors import BridgeError, StartFailed
from ops.lockfile import await_lock, try_lock
from ops.logs import configure_logging, get_logger
from ops.processes import command_line, pid_alive, set_parent_death_signal, stop_processes, wait_ended
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from ops.threads import start_duty

#: An unsupervised watchdog exits after this time without a worker.
_IDLE_S = 5.0
#: Longest interval between two readings of the vitals.
_TICK_S = 1.0
#: Time beyond a job's limit and grace period after which its worker is considered unable to stop it.
_OVERDUE_S = 5.0
#: Time for clean-ups that are under way when the watchdog is stopped.
_LAST_CLEAN_UP_S = 2.0
#: What a dead worker has sent is processed by the store within this time.
_STRAGGLER_S = 0.1

log = get_logger("watchdog")


class WatchedWorker:
    """One worker process, as the watchdog sees it."""

    def __init__(self, worker_id: str, pid: int, path: Path) -> None:
        self.worker_id = worker_id
        self.pid = pid
        self.path = path
        self.command = b""
        self.pidfd: int | None = None
        self.stop_sent_s: float | None = None
        self.unknown: set[tuple[str, str]] = set()


class Watchdog:
    """Watches the workers of one host.

    Args:
        loaded: Settings.
        paths: Its socket, and the workers' files.
    """

    def __init__(self, loaded: LoadedSettings, paths: WatchdogPaths) -> None:
        settings = loaded.settings
        self._settings = settings
        self._paths = paths
        self._lease_ms = int(settings.lease_s * 1000)
        self._scripts: Scripts = make_scripts(Store.open(loaded, timeout_s=2.0), settings)
        self._keys = Keys(settings.key_prefix)
        self._outage = Outage()
        self._workers: dict[str, WatchedWorker] = {}
        self._clean_ups = 0
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._stop_requested = False
        self._wake, self._sleeper = socket.socketpair()
        self._idle_since_s = time.monotonic()
        self._store_since_s = time.monotonic()

    def run(self, *, stay: bool) -> None:
        """Watch until stopped.

        Args:
            stay: Keep running without workers.
        """
        listener = self._listen()
        self._selector.register(listener, selectors.EVENT_READ, self._connected)
        self._selector.register(self._sleeper, selectors.EVENT_READ, lambda link: link.recv(64))
        self._adopt()
        ticker = start_duty("ticker", self._tick, ended=self._stopping.is_set)
        log.info("watchdog.started", workers=len(self._workers))
        try:
            while not self._stop_requested:
                for key, _ in self._selector.select(_TICK_S):
                    key.data(key.fileobj)
                if not stay and self._is_idle():
                    break
        finally:
            listener.close()
            self._paths.socket.unlink(missing_ok=True)
            self._await_clean_ups()
            self._stopping.set()
            ticker.join(timeout=3.0)
            log.info("watchdog.stopped")

    def stop(self) -> None:
        """Exit soon; may be called from a signal handler."""
        self._stop_requested = True
        self._wake.send(b".")

    def _await_clean_ups(self) -> None:
        deadline_s = time.monotonic() + _LAST_CLEAN_UP_S
        while self._clean_ups and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _is_idle(self) -> bool:
        with self._lock:
            if self._workers or self._clean_ups:
                self._idle_since_s = time.monotonic()
        return time.monotonic() - self._idle_since_s > _IDLE_S

    def _listen(self) -> socket.socket:
        self._paths.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._paths.socket))
        self._paths.socket.chmod(0o600)
        listener.listen(64)
        return listener

    def _adopt(self) -> None:
        """Take over from an earlier watchdog: living workers, and the jobs of dead ones."""
        if not self._paths.vitals_dir.is_dir():
            return
        for path in sorted(self._paths.vitals_dir.iterdir()):
            if not path.name.startswith("."):  # a draft
                self._watch(path.name)

    def _connected(self, listener: socket.socket) -> None:
        link, _ = listener.accept()
        link.settimeout(2.0)
        self._selector.register(link, selectors.EVENT_READ, self._receive)

    def _receive(self, link: socket.socket) -> None:
        try:
            data = link.recv(512)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(link)
            link.close()
            return
        self._watch(data.decode(errors="replace").strip())

    def _watch(self, worker_id: str) -> None:
        """Start to watch a worker, unless it is watched already; clean up at once if it is dead."""
        path = self._paths.vitals_dir / Path(worker_id).name
        try:
            reading = read_vitals(path)
        except (OSError, ValueError):  # no such file, or not a valid file name
            return
        except StartFailed as error:
            log.warning("watchdog.bad_file", path=str(path), reason=str(error))
            path.unlink(missing_ok=True)
            return
        worker = WatchedWorker(worker_id, reading.pid, path)
        with self._lock:
            if worker_id in self._workers:
                return
            self._workers[worker_id] = worker
        started = None if reading.start_time == 0 else reading.start_time
        if not hasattr(os, "pidfd_open"):
            threading.Thread(target=self._await_end, args=(worker,), name="await-end", daemon=True).start()
            return
        with contextlib.suppress(ProcessLookupError):
            worker.pidfd = os.pidfd_open(reading.pid)
        if worker.pidfd is None or not pid_alive(reading.pid, started):
            self._died(worker)
            return
        worker.command = command_line(reading.pid)
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda _: self._died(worker))

    def _await_end(self, worker: WatchedWorker) -> None:
        while not self._stopping.is_set() and not wait_ended([worker.pid], _TICK_S):
            continue
        if not self._stopping.is_set():
            self._start_clean_up(worker)

    def _died(self, worker: WatchedWorker) -> None:
        with self._lock:  # the ticker may be about to use it
            pidfd, worker.pidfd = worker.pidfd, None
            if pidfd is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(pidfd)
                os.close(pidfd)
        self._start_clean_up(worker)

    def _start_clean_up(self, worker: WatchedWorker) -> None:
        with self._lock:
            self._workers.pop(worker.worker_id, None)
            self._clean_ups += 1
        threading.Thread(target=self._clean_up, args=(worker,), name="clean-up", daemon=True).start()

    def _clean_up(self, worker: WatchedWorker) -> None:
        """End what a dead worker's jobs had started, then take its jobs back, in this order."""
        try:
            reading = _read(worker.path)
            if reading is None:
                return  # an orderly shutdown: it had no jobs
            log.warning(
                "worker.died", worker_id=worker.worker_id, worker_pid=worker.pid, jobs=len(reading.jobs)
            )
            stop_processes(lambda: started_by(worker.worker_id, worker.command), grace_s=0.0)
            started = {job.job_id for job in reading.jobs}
            # The store may process a fetch that the worker sent before it died after the first recovery.
            if self._recover(worker, started) and not self._stopping.wait(_STRAGGLER_S):
                self._recover(worker, started)
                worker.path.unlink(missing_ok=True)  # left there, the next watchdog cleans up again
        finally:
            with self._lock:
                self._clean_ups -= 1

    def _recover(self, worker: WatchedWorker, started: set[str]) -> bool:
        """Take a dead worker's jobs back, once the store answers; return False if stopped before that."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                held = self._scripts.store.call("HKEYS", self._keys.processing(worker.worker_id))
                waiting = [item.decode() for item in held if item.decode() not in started]
                recovered = self._scripts.recover(
                    worker.worker_id,
                    not_started=waiting,
                    how=f"its process {worker.pid} died at {utc_now()}",
                )
            except BridgeError as error:
                self._outage.begin(error)
                backoff.wait(self._stopping)
                continue
            self._outage.end()
            for _, job_id, status in recovered:
                log.warning("job.recovered", job_id=job_id, from_worker=worker.worker_id, status=status)
            return True
        return False

    def _tick(self) -> None:
        """Read the vitals and renew the leases, until stopped."""
        tick_s = min(_TICK_S, self._settings.lease_s / 4)
        renewed_s = 0.0
        while not self._stopping.wait(tick_s):
            with self._lock:
                workers = list(self._workers.values())
            for worker in workers:
                self._check(worker)
            if not workers or time.monotonic() - renewed_s < self._settings.lease_s / 3 - tick_s:
                continue
            renewed_s = time.monotonic()
            try:
                self._scripts.run("lease", self._lease_ms, *(worker.worker_id for worker in workers))
                for worker in workers:
                    self._hand_back_unknown(worker)
            except BridgeError as error:
                self._outage.begin(error)
                self._store_since_s = time.monotonic()
            else:
                self._outage.end()

    def _hand_back_unknown(self, worker: WatchedWorker) -> None:
        """Hand back jobs that are on a worker's processing set but not in its vitals.

        A fetch that a paused store processed long after its connection was closed leaves such jobs. They have
        to be seen twice, in a worker whose threads run, so that none is taken on its way to a thread.
        """
        reading = _read(worker.path)
        if reading is None or (time.monotonic_ns() - reading.beat_ns) / 1e9 > 2 * self._settings.heartbeat_s:
            worker.unknown = set()
            return
        flat = [
            item.decode()
            for item in self._scripts.store.call("HGETALL", self._keys.processing(worker.worker_id))
        ]
        known = {job.job_id for job in reading.jobs}
        held = set(zip(flat[::2], flat[1::2], strict=True))
        unknown = {(job_id, delivery) for job_id, delivery in held if job_id not in known}
        back = Settlement(
            outcome="queued", reason=f"handed back: {worker.worker_id} did not know that it had it"
        )
        for job_id, delivery in unknown & worker.unknown:
            self._scripts.settle(worker.worker_id, job_id, delivery, back)
            log.warning("job.handed_back", job_id=job_id, from_worker=worker.worker_id, reason=back.reason)
        worker.unknown = unknown

    def _check(self, worker: WatchedWorker) -> None:
        """Stop a worker that has a fault: SIGTERM if that can be enough, then SIGKILL."""
        reading = _read(worker.path)
        if reading is None:
            return
        fault = self._fault(reading)
        if fault is None and worker.stop_sent_s is None:
            return
        now_s = time.monotonic()
        patience_s = self._settings.worker_shutdown_timeout_s + _OVERDUE_S
        if worker.stop_sent_s is None and fault is not None:
            can_stop, reason = fault
            log.error("worker.replaced", worker_id=worker.worker_id, worker_pid=worker.pid, reason=reason)
            worker.stop_sent_s = now_s if can_stop else now_s - patience_s - 1
            if can_stop:
                self._signal(worker, signal.SIGTERM)
        if worker.stop_sent_s is not None and now_s - worker.stop_sent_s > patience_s:
            self._signal(worker, signal.SIGKILL)

    def _signal(self, worker: WatchedWorker, number: signal.Signals) -> None:
        # A stopped process handles a SIGTERM only after a SIGCONT.
        for each in (number, signal.SIGCONT) if number == signal.SIGTERM else (number,):
            # It may have died just now. The pidfd cannot reach another process that has got its pid since.
            with self._lock, contextlib.suppress(ProcessLookupError):
                if worker.pidfd is not None:
                    signal.pidfd_send_signal(worker.pidfd, each)
                elif not hasattr(os, "pidfd_open"):
                    os.kill(worker.pid, each)

    def _fault(self, reading: VitalsReading) -> tuple[bool, str] | None:
        """Return what is wrong with a worker, and whether it can still stop by itself."""
        now_ns = time.monotonic_ns()
        stall_s = self._settings.stall_s
        for job in reading.jobs:
            over_s = (now_ns - job.started_ns - job.allowed_ns) / 1e9
            if over_s > self._settings.kill_grace_s + _OVERDUE_S:
                return (
                    False,
                    f"job {job.job_id} runs {over_s:.0f} s beyond its time limit and cannot be stopped",
                )
        if reading.stopping:
            return None
        silent_s = (now_ns - reading.poll_ns) / 1e9
        is_beating = (now_ns - reading.beat_ns) / 1e9 < stall_s
        if silent_s > stall_s and (is_beating or not reading.jobs):
            return is_beating, f"it has not polled for work for {silent_s:.0f} s"
        cut_off_s = (now_ns - reading.store_ns) / 1e9
        # Only if the watchdog itself has reached the store all that time.
        if is_beating and cut_off_s > stall_s and time.monotonic() - self._store_since_s > stall_s:
            return True, f"it has not reached the store for {cut_off_s:.0f} s, while this host does"
        return None


def _read(path: Path) -> VitalsReading | None:
    try:
        return read_vitals(path)
    except (OSError, StartFailed):
        return None


def main() -> int:
    """Run the watchdog; return the exit status, 0 also if another one runs already."""
    loaded = load_settings()
    paths = watchdog_paths(loaded)
    loaded.workspace.create()
    supervised = variable("BRIDGE_SUPERVISED") != ""
    if supervised:
        set_parent_death_signal(signal.SIGTERM)
    # A supervised one waits for the lock: its holder may be exiting, or serve workers of its own.
    lock_fd = await_lock(paths.lock) if supervised else try_lock(paths.lock)
    if lock_fd is None:
        return 0
    configure_logging(loaded, process="watchdog", console=False)
    watchdog = Watchdog(loaded, paths)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watchdog.stop())
    try:
        watchdog.run(stay=supervised)
    finally:
        paths.lock.unlink(missing_ok=True)
        os.close(lock_fd)
        with contextlib.suppress(OSError):  # not empty while workers run
            paths.vitals_dir.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
