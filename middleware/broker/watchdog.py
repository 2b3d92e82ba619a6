"""The warden: one small process per host that answers for its workers when they cannot.

- It renews their leases, whatever a job does to its process: C code that holds the GIL, a busy loop.
- It notices a worker's death at once, through a pidfd, not through a time-out: ends the processes that the
  worker's jobs had started, then takes the jobs back. Only jobs that had really started count a crash.
- It replaces a worker that lives but no longer pulls, that no longer reaches a store which others reach, or
  whose job has outrun its time limit where Python could not stop it.

Runs as ``python -m middleware.broker.watchdog``; a second one for the same workspace and store ends at
once. It ends when it has had no worker for a while, unless a supervisor runs it.
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
from middleware.broker.scripts import Scripts, Settlement
from middleware.broker.vitals import Signs, WardPlace, read_signs, ward_place
from middleware.job.keys import Keys
from middleware.job.records import utc_now
from ops.backoff import Backoff
from ops.errors import BridgeError, StartFailed
from ops.lockfile import await_lock, try_lock
from ops.logs import configure_logging, get_logger
from ops.processes import find_marked, pid_alive, set_parent_death_signal, stop_processes, wait_ended
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from ops.threads import start_duty

#: Without a worker for so long, an unsupervised warden ends.
_IDLE_S = 5.0
#: How often leases are renewed at least and vitals are read, in seconds.
_TICK_S = 1.0
#: A job may outrun its limit by so much before its worker is taken for unable to stop it.
_OVERDUE_S = 5.0

#: A clear-up that is under way when the warden is told to stop has this long.
_LAST_CLEAR_UP_S = 2.0
#: What a dead worker has sent is read by the store within this time.
_STRAGGLER_S = 0.1

log = get_logger("warden")


class Ward:
    """One worker in the warden's care."""

    def __init__(self, worker_id: str, pid: int, path: Path) -> None:
        self.worker_id = worker_id
        self.pid = pid
        self.path = path
        self.pidfd: int | None = None
        self.told_to_stop_s: float | None = None
        self.unknown: set[tuple[str, str]] = set()


class Warden:
    """Watches the workers of one host.

    Args:
        loaded: Settings.
        place: Where the workers find it.
    """

    def __init__(self, loaded: LoadedSettings, place: WardPlace) -> None:
        settings = loaded.settings
        self._settings = settings
        self._place = place
        self._lease_ms = int(settings.lease_s * 1000)
        self._scripts: Scripts = make_scripts(Store.open(loaded, timeout_s=2.0), settings)
        self._keys = Keys(settings.key_prefix)
        self._outage = Outage()
        self._wards: dict[str, Ward] = {}
        self._busy = 0
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._told_to_stop = False
        self._wake, self._sleeper = socket.socketpair()
        self._idle_since_s = time.monotonic()
        self._store_since_s = time.monotonic()

    def run(self, *, stay: bool) -> None:
        """Watch until told to stop.

        Args:
            stay: Do not end for want of workers.
        """
        listener = self._listen()
        self._selector.register(listener, selectors.EVENT_READ, self._welcome)
        self._selector.register(self._sleeper, selectors.EVENT_READ, lambda link: link.recv(64))
        self._adopt()
        ticker = start_duty("ticker", self._tick_on, ended=self._stopping.is_set)
        log.info("warden.started", workers=len(self._wards))
        try:
            while not self._told_to_stop:
                for key, _ in self._selector.select(_TICK_S):
                    key.data(key.fileobj)
                if not stay and self._is_idle():
                    break
        finally:
            listener.close()
            self._place.socket.unlink(missing_ok=True)
            self._finish_clear_ups()
            self._stopping.set()
            ticker.join(timeout=3.0)
            log.info("warden.stopped")

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._told_to_stop = True
        self._wake.send(b".")

    def _finish_clear_ups(self) -> None:
        deadline_s = time.monotonic() + _LAST_CLEAR_UP_S
        while self._busy and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def _is_idle(self) -> bool:
        with self._lock:
            if self._wards or self._busy:
                self._idle_since_s = time.monotonic()
        return time.monotonic() - self._idle_since_s > _IDLE_S

    def _listen(self) -> socket.socket:
        self._place.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._place.socket))
        self._place.socket.chmod(0o600)
        listener.listen(64)
        return listener

    def _adopt(self) -> None:
        """Take over what an earlier warden has left: living workers, and the jobs of dead ones."""
        if not self._place.vitals_dir.is_dir():
            return
        for path in sorted(self._place.vitals_dir.iterdir()):
            if not path.name.startswith("."):  # one that is being made
                self._take(path.name)

    def _welcome(self, listener: socket.socket) -> None:
        link, _ = listener.accept()
        link.settimeout(2.0)
        self._selector.register(link, selectors.EVENT_READ, self._hear)

    def _hear(self, link: socket.socket) -> None:
        try:
            data = link.recv(512)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(link)
            link.close()
            return
        self._take(data.decode(errors="replace").strip())

    def _take(self, worker_id: str) -> None:
        """Take a worker into care, once; one that is dead already is seen to at once."""
        path = self._place.vitals_dir / Path(worker_id).name
        try:
            signs = read_signs(path)
        except (OSError, ValueError):  # gone, or not a worker's name at all
            return
        except StartFailed as error:
            log.warning("warden.bad_file", path=str(path), reason=str(error))
            path.unlink(missing_ok=True)
            return
        ward = Ward(worker_id, signs.pid, path)
        with self._lock:
            if worker_id in self._wards:
                return
            self._wards[worker_id] = ward
        started = None if signs.start_time == 0 else signs.start_time
        if not hasattr(os, "pidfd_open"):
            threading.Thread(target=self._await_end, args=(ward,), name="await-end", daemon=True).start()
            return
        with contextlib.suppress(ProcessLookupError):
            ward.pidfd = os.pidfd_open(signs.pid)
        if ward.pidfd is None or not pid_alive(signs.pid, started):
            self._gone(ward)
            return
        self._selector.register(ward.pidfd, selectors.EVENT_READ, lambda _: self._gone(ward))

    def _await_end(self, ward: Ward) -> None:
        while not self._stopping.is_set() and not wait_ended([ward.pid], _TICK_S):
            continue
        if not self._stopping.is_set():
            self._see_to(ward)

    def _gone(self, ward: Ward) -> None:
        with self._lock:  # the ticker may be about to use it
            pidfd, ward.pidfd = ward.pidfd, None
            if pidfd is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(pidfd)
                os.close(pidfd)
        self._see_to(ward)

    def _see_to(self, ward: Ward) -> None:
        with self._lock:
            self._wards.pop(ward.worker_id, None)
            self._busy += 1
        threading.Thread(target=self._clear_up, args=(ward,), name="clear-up", daemon=True).start()

    def _clear_up(self, ward: Ward) -> None:
        """End what a dead worker's jobs had started, then take its jobs back; in this order."""
        try:
            signs = _last_signs(ward.path)
            if signs is None:
                return  # it took its leave: nothing was in hand
            log.warning("worker.died", worker_id=ward.worker_id, worker_pid=ward.pid, jobs=len(signs.jobs))
            stop_processes(lambda: find_marked("BRIDGE_WORKER_ID", ward.worker_id), grace_s=0.0)
            started = {job.job_id for job in signs.jobs}
            # A fetch that the worker had sent off before it died may be carried out after the first look.
            if self._recover(ward, started) and not self._stopping.wait(_STRAGGLER_S):
                self._recover(ward, started)
                ward.path.unlink(missing_ok=True)  # otherwise the next warden finds it, and sees to it
        finally:
            with self._lock:
                self._busy -= 1

    def _recover(self, ward: Ward, started: set[str]) -> bool:
        """Take a dead worker's jobs back once the store answers; False if we were told to stop first."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                held = self._scripts.store.call("HKEYS", self._keys.processing(ward.worker_id))
                waiting = [item.decode() for item in held if item.decode() not in started]
                taken = self._scripts.recover(
                    ward.worker_id, not_started=waiting, how=f"its process {ward.pid} died at {utc_now()}"
                )
            except BridgeError as error:
                self._outage.begin(error)
                backoff.wait(self._stopping)
                continue
            self._outage.end()
            for _, job_id, status in taken:
                log.warning("job.recovered", job_id=job_id, from_worker=ward.worker_id, status=status)
            return True
        return False

    def _tick_on(self) -> None:
        tick_s = min(_TICK_S, self._settings.lease_s / 4)
        renewed_s = 0.0
        while not self._stopping.wait(tick_s):
            with self._lock:
                wards = list(self._wards.values())
            for ward in wards:
                self._look_at(ward)
            if not wards or time.monotonic() - renewed_s < self._settings.lease_s / 3 - tick_s:
                continue
            renewed_s = time.monotonic()
            try:
                self._scripts.run("lease", self._lease_ms, *(ward.worker_id for ward in wards))
                for ward in wards:
                    self._compare(ward)
            except BridgeError as error:
                self._outage.begin(error)
                self._store_since_s = time.monotonic()
            else:
                self._outage.end()

    def _compare(self, ward: Ward) -> None:
        """Hand back jobs that stand on a worker's processing set but that the worker knows nothing of.

        A fetch that a paused store carried out long after its connection was given up leaves such jobs. They
        have to be seen twice, in a worker whose threads run, so that none is taken on its way to a thread.
        """
        signs = _last_signs(ward.path)
        if signs is None or (time.monotonic_ns() - signs.beat_ns) / 1e9 > 2 * self._settings.heartbeat_s:
            ward.unknown = set()
            return
        flat = [
            item.decode()
            for item in self._scripts.store.call("HGETALL", self._keys.processing(ward.worker_id))
        ]
        known = {job.job_id for job in signs.jobs}
        held = set(zip(flat[::2], flat[1::2], strict=True))
        unknown = {(job_id, delivery) for job_id, delivery in held if job_id not in known}
        back = Settlement(
            outcome="queued", reason=f"handed back: {ward.worker_id} did not know that it had it"
        )
        for job_id, delivery in unknown & ward.unknown:
            self._scripts.settle(ward.worker_id, job_id, delivery, back)
            log.warning("job.handed_back", job_id=job_id, from_worker=ward.worker_id, reason=back.reason)
        ward.unknown = unknown

    def _look_at(self, ward: Ward) -> None:
        signs = _last_signs(ward.path)
        if signs is None:
            return
        fault = self._fault(signs)
        if fault is None and ward.told_to_stop_s is None:
            return
        now_s = time.monotonic()
        patience_s = self._settings.worker_shutdown_timeout_s + _OVERDUE_S
        if ward.told_to_stop_s is None and fault is not None:
            gentle, reason = fault
            log.error("worker.replaced", worker_id=ward.worker_id, worker_pid=ward.pid, reason=reason)
            ward.told_to_stop_s = now_s if gentle else now_s - patience_s - 1
            if gentle:
                self._signal(ward, signal.SIGTERM)
        if ward.told_to_stop_s is not None and now_s - ward.told_to_stop_s > patience_s:
            self._signal(ward, signal.SIGKILL)

    def _signal(self, ward: Ward, number: signal.Signals) -> None:
        # A stopped process would not hear a SIGTERM.
        for each in (number, signal.SIGCONT) if number == signal.SIGTERM else (number,):
            # It may just have died; the pidfd, where there is one, cannot hit a process that got its pid.
            with self._lock, contextlib.suppress(ProcessLookupError):
                if ward.pidfd is not None:
                    signal.pidfd_send_signal(ward.pidfd, each)
                elif not hasattr(os, "pidfd_open"):
                    os.kill(ward.pid, each)

    def _fault(self, signs: Signs) -> tuple[bool, str] | None:
        """Say what is wrong with a worker, and whether asking it to stop can be enough."""
        now_ns = time.monotonic_ns()
        stall_s = self._settings.stall_s
        for job in signs.jobs:
            over_s = (now_ns - job.started_ns - job.allowed_ns) / 1e9
            if over_s > self._settings.kill_grace_s + _OVERDUE_S:
                return (
                    False,
                    f"job {job.job_id} runs {over_s:.0f} s beyond its time limit and cannot be stopped",
                )
        if signs.stopping:
            return None
        silent_s = (now_ns - signs.round_ns) / 1e9
        is_beating = (now_ns - signs.beat_ns) / 1e9 < stall_s
        if silent_s > stall_s and (is_beating or not signs.jobs):
            return is_beating, f"it has not looked for work for {silent_s:.0f} s"
        cut_off_s = (now_ns - signs.store_ns) / 1e9
        # The store has to have been well, as seen from here, for all that time.
        if is_beating and cut_off_s > stall_s and time.monotonic() - self._store_since_s > stall_s:
            return True, f"it has not reached the store for {cut_off_s:.0f} s, which others reach"
        return None


def _last_signs(path: Path) -> Signs | None:
    try:
        return read_signs(path)
    except (OSError, StartFailed):
        return None


def main() -> int:
    """Run the warden; gives the exit status: 0 also when another one is there already."""
    loaded = load_settings()
    place = ward_place(loaded)
    loaded.workspace.create()
    supervised = "BRIDGE_SUPERVISED" in os.environ
    if supervised:
        set_parent_death_signal(signal.SIGTERM)
    # A supervised one waits for its turn: another one may be on its way out, or serve workers of its own.
    lock_fd = await_lock(place.lock) if supervised else try_lock(place.lock)
    if lock_fd is None:
        return 0
    configure_logging(loaded, process="warden", console=False)
    warden = Warden(loaded, place)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: warden.stop())
    try:
        warden.run(stay=supervised)
    finally:
        place.lock.unlink(missing_ok=True)
        os.close(lock_fd)
        with contextlib.suppress(OSError):  # living workers still have their files there
            place.vitals_dir.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
