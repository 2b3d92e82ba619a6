"""Keeps the programs of a bridge running and stops all their processes in the end.

Each program has its own session, receives SIGTERM from the kernel when the supervisor dies, and is restarted
when it ends. On Linux the supervisor is the subreaper of all its descendants, so that none can escape the
final sweep; on macOS the sweep finds them by the mark in their environment.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ops.backoff import Backoff
from ops.environment import for_child
from ops.errors import BridgeError, DiskFull, SettingsError, StartFailed
from ops.logs import get_logger
from ops.processes import (
    become_subreaper,
    descendants,
    find_marked,
    pid_alive,
    process_start_time,
    stop_processes,
)
from ops.supervision.program import Program, Readiness, RunningProgram, either
from ops.supervision.state_file import INSTANCE_MARK, ProgramState, SupervisorState, state_exists, write_state
from ops.workspace import Workspace

#: Delay between the end of a program and its restart; it doubles from the first to the maximum.
_RESTART_FIRST_S = 0.05
_RESTART_MAX_S = 10.0
#: A program that ran at least this long restarts with the shortest delay.
STEADY_S = 10.0
#: Number of ends before a program's first readiness after which the start fails.
EARLY_ENDS_MAX = 3
#: Interval of the check whether the state file exists and is current: a full disk may have prevented writing
#: it.
_SAVE_AGAIN_S = 2.0
#: A stop that takes no longer is not explained.
_EXPLAIN_STOP_AFTER_S = 0.4
#: Polling interval for the end of processes that are not our children.
_ORPHAN_POLL_S = 0.05

#: Text of ENOSPC in the output of any program.
_DISK_FULL = os.strerror(errno.ENOSPC)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = get_logger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Orphan(NamedTuple):
    """A process that has outlived the program that started it.

    Attributes:
        ends_at_s: End of its grace period, by the monotonic clock.
    """

    pid: int
    start_time: int | None
    ends_at_s: float

    def has_time(self) -> bool:
        """Return whether it runs and its grace period has not ended."""
        return time.monotonic() < self.ends_at_s and pid_alive(self.pid, self.start_time)


class Supervisor:
    """Runs programs until it is stopped by a signal.

    Args:
        programs: The programs in the order of their start.
        workspace: Workspace of the state file; None writes none.
        store_url: URL of the store for the state file, password masked.
        start_timeout_s: Timeout until all programs are ready, in seconds; None waits without limit.
        kill_grace_s: Time between SIGTERM and SIGKILL in the final sweep, in seconds.
        on_ready: Called once when all programs are ready.
        on_stopping: Called in a thread if a stop takes more than a moment, with the time since when it goes
            on, by the monotonic clock; has to return within a second.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        workspace: Workspace | None,
        *,
        store_url: str = "",
        start_timeout_s: float | None = 60.0,
        kill_grace_s: float = 2.0,
        on_ready: Callable[[], None] | None = None,
        on_stopping: Callable[[float], None] | None = None,
    ) -> None:
        self._programs = list(programs)
        self._workspace = workspace
        self._start_timeout_s = start_timeout_s
        self._kill_grace_s = kill_grace_s
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        started = process_start_time(os.getpid())
        self._state = SupervisorState(
            pid=os.getpid(),
            start_time=started,
            instance=f"{os.getpid()}-{started}",
            since=_now(),
            store_url=store_url,
            home="" if workspace is None else os.path.realpath(workspace.home),
            programs=[ProgramState(name=program.name) for program in self._programs],
        )
        self._states = {state.name: state for state in self._state.programs}
        self._running: dict[str, RunningProgram] = {}
        self._failure: BridgeError | None = None
        self._exit_code = 0
        self._saved = False
        self._orphans: list[Orphan] = []

    def run(self) -> int:
        """Start all programs, keep them running until a signal, stop them all.

        The process should exit afterwards: the stop signals remain blocked.

        Returns:
            0, or the exit code of a program with ``restart=False`` that has ended.

        Raises:
            StartFailed: A program did not become ready; all programs have been stopped.
        """
        asyncio.run(self._main())
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._stopping, self._hurry, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        become_subreaper()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        keepers: list[asyncio.Task[None]] = []
        try:
            await self._start_all(keepers)
            if self._workspace is not None:
                keepers.append(asyncio.create_task(self._keep_saved(self._workspace)))
            await self._stopping.wait()
        finally:
            self._stopping.set()
            log.info("supervisor.stopping")
            explaining = asyncio.create_task(self._explain_stop(time.monotonic()))
            await self._stop_all()
            explaining.cancel()
            # All return by themselves now; an exception in one is raised, not hidden by the stop.
            for outcome in await asyncio.gather(*keepers, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            self._sweep()
            # The loop is about to remove its handlers; another signal must not interrupt the cleanup.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    def _on_stop_signal(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and keeper.exception() is not None:
            self._stopping.set()

    async def _start_all(self, keepers: list[asyncio.Task[None]]) -> None:
        try:
            async with asyncio.timeout(self._start_timeout_s):
                for number, program in enumerate(self._programs, start=1):
                    keepers.append(asyncio.create_task(self._keep(program)))
                    keepers[-1].add_done_callback(self._keeper_ended)
                    if program.gate:
                        await self._ready(self._programs[:number])
                await self._ready(self._programs)
        except TimeoutError:
            late = ", ".join(state.name for state in self._state.programs if not state.ready)
            self._failure = StartFailed(
                f"Not ready within {self._start_timeout_s} s: {late}.",
                remedy="See 3ox.log.",
            )
            self._stopping.set()
        if not self._stopping.is_set():
            log.info("supervisor.ready", programs=[program.name for program in self._programs])
            if self._on_ready is not None:
                self._on_ready()

    async def _ready(self, programs: Sequence[Program]) -> None:
        """Wait until all of these are ready or the supervisor is stopping."""
        while not self._stopping.is_set():
            if all(self._states[program.name].ready or program.optional for program in programs):
                return
            self._changed.clear()
            await either(self._stopping.wait(), self._changed.wait())

    async def _keep(self, program: Program) -> None:
        """Run a program and restart it until the supervisor is stopping."""
        backoff, was_ready = Backoff(_RESTART_FIRST_S, _RESTART_MAX_S, jitter=0.0), False
        state = self._states[program.name]
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                running = self._start(program)
            except StartFailed as failure:
                if not was_ready and not program.optional:
                    self._fail(failure)
                    return
                await self._delay_restart(program, failure, backoff.next_s())
                continue
            readiness = await self._run_to_end(running)
            exit_code = running.ended.result()
            was_ready = was_ready or state.ready
            state.pid, state.start_time, state.ready = None, None, False
            state.said = running.tail[-1] if running.tail else ""
            self._save()
            if not self._note_orphans(program, readiness) and readiness.marks:
                # Processes started by the jobs of a killed worker must not run during their next attempt.
                stop_processes(partial(_marked_processes, readiness.marks), grace_s=0.0)
            if self._stopping.is_set():
                return
            if not program.restart:
                self._exit_code = exit_code if exit_code >= 0 else 128 - exit_code
                self._stopping.set()
                return
            if time.monotonic() - started_s > STEADY_S:
                backoff.reset()
            wait_s = backoff.next_s()
            log.error("program.ended", program=program.name, exit_code=exit_code, restart_in_s=wait_s)
            if not was_ready and not program.optional and backoff.failures >= EARLY_ENDS_MAX:
                self._fail(_never_ready(running, exit_code))
                return
            state.restarts += 1
            await self._pause(wait_s)

    def _note_orphans(self, program: Program, readiness: Readiness) -> bool:
        """Record workers that outlive a killed Dramatiq master, and return whether there are any.

        They detect its end and shut down in good order.
        """
        alive = [pid for pid in readiness.pids if pid_alive(pid)]
        ends_at_s = time.monotonic() + program.stop_timeout_s
        known = [orphan for orphan in self._orphans if pid_alive(orphan.pid, orphan.start_time)]
        self._orphans = known + [Orphan(pid, process_start_time(pid), ends_at_s) for pid in alive]
        return alive != []

    async def _delay_restart(self, program: Program, failure: StartFailed, wait_s: float) -> None:
        """Wait before the next start of a program that ran before: the machine lacks a resource for now."""
        log.error("program.not_started", program=program.name, reason=str(failure), restart_in_s=wait_s)
        await self._pause(wait_s)

    def _start(self, program: Program) -> RunningProgram:
        marks = {INSTANCE_MARK: self._state.instance, "BRIDGE_UNIT": program.name}
        environ = for_child({**program.env, **marks})
        running = RunningProgram(program, environ)
        self._running[program.name] = running
        state = self._states[program.name]
        state.pid, state.since, state.ready = running.pid, _now(), False
        state.start_time = process_start_time(running.pid)
        self._save()
        log.info("program.started", program=program.name, program_pid=running.pid)
        return running

    async def _run_to_end(self, running: RunningProgram) -> Readiness:
        """Wait for the readiness of a process, then for its end."""
        program = running.program
        readiness = Readiness()
        if program.ready is not None:
            check = asyncio.ensure_future(program.ready(running.pid))
            await either(check, running.ended)
            if not check.done():
                return readiness
            readiness = check.result()
        running.watch(readiness)
        self._states[program.name].ready = True
        self._save()
        self._changed.set()
        await asyncio.wait([running.ended])
        return readiness

    async def _pause(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _fail(self, failure: BridgeError) -> None:
        self._failure = failure
        self._stopping.set()

    async def _stop_all(self) -> None:
        """Stop in reverse order: a gate after all programs that follow it, the others concurrently."""
        stages: list[list[RunningProgram]] = [[]]
        for program in self._programs:
            if program.name in self._running:
                stages[-1].append(self._running[program.name])
            if program.gate:
                stages.append([])
        for stage in reversed(stages):
            await asyncio.gather(self._await_orphans(), *(running.stop(self._hurry) for running in stage))

    async def _explain_stop(self, since_s: float) -> None:
        await asyncio.sleep(_EXPLAIN_STOP_AFTER_S)
        if self._on_stopping is not None and not self._hurry.is_set():
            await asyncio.to_thread(self._on_stopping, since_s)

    async def _await_orphans(self) -> None:
        """Wait for workers that have lost their master; the sweep would kill them with their jobs."""
        while not self._hurry.is_set() and any(orphan.has_time() for orphan in self._orphans):  # noqa: ASYNC110
            await asyncio.sleep(_ORPHAN_POLL_S)

    def _sweep(self) -> None:
        def left() -> set[int]:
            return {*descendants(os.getpid()), *find_marked(INSTANCE_MARK, self._state.instance)}

        strays = left()
        if strays:
            log.warning("supervisor.swept", pids=sorted(strays))
        if not stop_processes(left, grace_s=self._kill_grace_s):
            log.error("supervisor.left_behind", pids=sorted(left()))
        self._reap()
        for running in self._running.values():
            running.close()
        log.info("supervisor.stopped")

    def _reap(self) -> None:
        """Collect the exit codes of all ended children, adopted orphans included."""
        by_pid = {running.pid: running for running in self._running.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:
                by_pid[pid].set_ended(os.waitstatus_to_exitcode(status))

    def _save(self) -> None:
        """Write the state file; a failure (disk full) is logged, and the write is repeated later."""
        if self._workspace is None:
            return
        try:
            if not self._workspace.run_dir.is_dir():
                self._workspace.create()
            write_state(self._workspace, self._state)
        except (OSError, SettingsError) as error:
            if self._saved:
                log.warning("supervisor.state_not_written", reason=str(error))
            self._saved = False
        else:
            self._saved = True

    async def _keep_saved(self, workspace: Workspace) -> None:
        """Write the state file again when it is out of date or missing: '3ox down' depends on it."""
        while not self._stopping.is_set():
            await self._pause(_SAVE_AGAIN_S)
            if not self._stopping.is_set() and not (self._saved and state_exists(workspace)):
                self._save()


def _marked_processes(marks: Sequence[tuple[str, str]]) -> set[int]:
    return {pid for name, value in marks for pid in find_marked(name, value)}


def _never_ready(running: RunningProgram, exit_code: int) -> BridgeError:
    last_line = running.tail[-1] if running.tail else "no output"
    message = f"{running.program.name} ended with exit code {exit_code} while starting: {last_line}"
    if any(_DISK_FULL in line for line in running.tail):
        return DiskFull(f"The disk is full: {message}", remedy="Free some space.")
    return StartFailed(message, remedy="See 3ox.log.")
