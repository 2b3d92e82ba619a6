"""Keeps the programs of a bridge running, and leaves nothing behind.

Each program has a session of its own, gets SIGTERM from the kernel when the supervisor dies, and is started
again when it ends. On Linux the supervisor is also the subreaper of everything below it, so that no
grandchild can escape the sweep at the end; on macOS that sweep goes by the mark in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ops.backoff import Backoff
from ops.errors import BridgeError, SettingsError, StartFailed
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

#: Waits between the end of a program and its next start: doubled each time, from the first to the last.
_RESTART_FIRST_S = 0.05
_RESTART_MAX_S = 10.0
#: Who has lived so long starts again with the shortest wait.
STEADY_S = 10.0
#: Ends before its first readiness that make the whole start fail.
EARLY_ENDS_MAX = 3
#: Between two looks whether the state file is there: a full disk may have refused it, somebody removed it.
_SAVE_AGAIN_S = 2.0

#: No future tells the end of a process that we have not started ourselves; so often it is looked for.
_SEE_OFF_LOOK_S = 0.05

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = get_logger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Orphan(NamedTuple):
    """A process that has outlived the program which had started it.

    Attributes:
        ends_at_s: It has time until then, by the monotonic clock.
    """

    pid: int
    start_time: int | None
    ends_at_s: float

    def has_time(self) -> bool:
        """Tell whether it lives and may go on."""
        return time.monotonic() < self.ends_at_s and pid_alive(self.pid, self.start_time)


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        programs: In the order of their start; to add one, add it here.
        workspace: Where its state file goes; None writes none.
        store_url: For the state file, without password.
        start_timeout_s: Bound on the time until all are ready; None waits as long as it takes.
        kill_grace_s: For what the final sweep finds.
        on_ready: Called once, when all are ready.
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
    ) -> None:
        self._programs = list(programs)
        self._workspace = workspace
        self._start_timeout_s = start_timeout_s
        self._kill_grace_s = kill_grace_s
        self._on_ready = on_ready
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
        """Start all, keep them running, stop all; blocks until then.

        Afterwards the process is expected to end: the signals that stop it stay blocked.

        Returns:
            0, or the exit code of a program that is not to be restarted and has ended.

        Raises:
            StartFailed: A program did not become ready; everything has been stopped again.
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
            loop.add_signal_handler(number, self._told_to_stop)
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
            await self._stop_all()
            # Each returns by itself now; a bug in one must not hide behind the stop.
            for outcome in await asyncio.gather(*keepers, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            self._sweep()
            # The loop is about to give up its handlers; an impatient signal must not cut the cleaning short.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    def _told_to_stop(self) -> None:
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
                f"not ready within {self._start_timeout_s} s: {late}.",
                remedy="See 3ox.log.",
            )
            self._stopping.set()
        if not self._stopping.is_set():
            log.info("supervisor.ready", programs=[program.name for program in self._programs])
            if self._on_ready is not None:
                self._on_ready()

    async def _ready(self, programs: Sequence[Program]) -> None:
        """Wait until all of these are ready, or until we are stopping."""
        while not self._stopping.is_set():
            if all(self._states[program.name].ready for program in programs):
                return
            self._changed.clear()
            await either(self._stopping.wait(), self._changed.wait())

    async def _keep(self, program: Program) -> None:
        """Run a program again and again until we are stopping."""
        backoff, was_ready = Backoff(_RESTART_FIRST_S, _RESTART_MAX_S, jitter=0.0), False
        state = self._states[program.name]
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                running = self._start(program)
            except StartFailed as failure:
                if not was_ready:
                    self._fail(failure)
                    return
                await self._put_off(program, failure, backoff.next_s())
                continue
            vital = await self._live(running)
            exit_code = running.ended.result()
            was_ready = was_ready or state.ready
            state.pid, state.start_time, state.ready = None, None, False
            state.said = running.tail[-1] if running.tail else ""
            self._save()
            if not self._outlived(program, vital) and vital.marks:
                # What a killed worker's jobs have started must not meet their next attempt.
                stop_processes(partial(_bearers, vital.marks), grace_s=0.0)
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
            if not was_ready and backoff.failures >= EARLY_ENDS_MAX:
                self._fail(_never_ready(running, exit_code))
                return
            state.restarts += 1
            await self._pause(wait_s)

    def _outlived(self, program: Program, vital: Readiness) -> bool:
        """Note workers that live on since only Dramatiq's master was killed: they stop in good order now."""
        alive = [pid for pid in vital.pids if pid_alive(pid)]
        ends_at_s = time.monotonic() + program.stop_timeout_s
        known = [orphan for orphan in self._orphans if pid_alive(orphan.pid, orphan.start_time)]
        self._orphans = known + [Orphan(pid, process_start_time(pid), ends_at_s) for pid in alive]
        return alive != []

    async def _put_off(self, program: Program, failure: StartFailed, wait_s: float) -> None:
        """Wait: it has run before, so the machine lacks something just now, and the others go on."""
        log.error("program.not_started", program=program.name, reason=str(failure), restart_in_s=wait_s)
        await self._pause(wait_s)

    def _start(self, program: Program) -> RunningProgram:
        environ = {
            **os.environ,
            **program.env,
            INSTANCE_MARK: self._state.instance,
            "BRIDGE_UNIT": program.name,
        }
        running = RunningProgram(program, environ)
        self._running[program.name] = running
        state = self._states[program.name]
        state.pid, state.since, state.ready = running.pid, _now(), False
        state.start_time = process_start_time(running.pid)
        self._save()
        log.info("program.started", program=program.name, program_pid=running.pid)
        return running

    async def _live(self, running: RunningProgram) -> Readiness:
        """See a process through its life: wait for its readiness, then for its end."""
        program = running.program
        vital = Readiness()
        if program.ready is not None:
            check = asyncio.ensure_future(program.ready(running.pid))
            await either(check, running.ended)
            if not check.done():
                return vital
            vital = check.result()
        running.watch(vital)
        self._states[program.name].ready = True
        self._save()
        self._changed.set()
        await asyncio.wait([running.ended])
        return vital

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
        """Stop in reverse order: each gate after everything that came after it, the rest side by side."""
        stages: list[list[RunningProgram]] = [[]]
        for program in self._programs:
            if program.name in self._running:
                stages[-1].append(self._running[program.name])
            if program.gate:
                stages.append([])
        for stage in reversed(stages):
            await asyncio.gather(self._see_off(), *(running.stop(self._hurry) for running in stage))

    async def _see_off(self) -> None:
        """Give workers that have lost their master their time: what is swept is ended, with its jobs."""
        while not self._hurry.is_set() and any(orphan.has_time() for orphan in self._orphans):  # noqa: ASYNC110
            await asyncio.sleep(_SEE_OFF_LOOK_S)

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
        """Take the exit codes of all that has ended, adopted orphans included."""
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
        """Write the state file; a full disk must not cost more than its being out of date for a while."""
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
        """Write the state file again where it is out of date or gone: '3ox down' finds us by it."""
        while not self._stopping.is_set():
            await self._pause(_SAVE_AGAIN_S)
            if not self._stopping.is_set() and not (self._saved and state_exists(workspace)):
                self._save()


def _bearers(marks: Sequence[tuple[str, str]]) -> set[int]:
    return {pid for name, value in marks for pid in find_marked(name, value)}


def _never_ready(running: RunningProgram, exit_code: int) -> StartFailed:
    said = running.tail[-1] if running.tail else "it said nothing"
    return StartFailed(
        f"{running.program.name} ended with exit code {exit_code} while starting: {said}",
        remedy="See 3ox.log.",
    )
