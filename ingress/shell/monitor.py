"""Keep a snapshot of the bridge up to date by the store's events.

Toolbar and completion read it on every key press, so reading it never waits for the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from msgspec import Struct

from ingress.core.bridge import Bridge
from ingress.core.text import kind, one_line, short_id, since, what
from middleware.job.records import JobEvent, JobRecord
from middleware.job.states import FINAL
from ops.errors import JobNotFound, StoreError, StoreUnreachable
from ops.threads import start_duty

#: Longest interval between two snapshots, since workers start and stop without an event.
IDLE_S = 5.0
#: Shortest interval between two snapshots.
BURST_S = 0.25
_JOBS_MAX = 50
#: Background jobs whose end is announced; beyond that the oldest are forgotten.
_TRACKED_MAX = 1000


class CompletionJob(Struct, frozen=True):
    """A job that completion offers.

    Attributes:
        job_id: Its id.
        status: Its state.
        about: State, type and summary, shown beside the id.
    """

    job_id: str
    status: str
    about: str


class BridgeSnapshot(Struct, frozen=True, kw_only=True):
    """The bridge at one moment.

    Attributes:
        is_unavailable: Whether the store is unavailable; ``jobs`` is then from an earlier snapshot.
        summary: Number of jobs by state.
        workers: Number of healthy workers.
        jobs: The latest jobs, newest first.
    """

    is_unavailable: bool = False
    summary: dict[str, int] = {}
    workers: int = 0
    jobs: tuple[CompletionJob, ...] = ()


class BridgeMonitor:
    """Keeps a snapshot of the bridge and announces when background jobs finish.

    Args:
        bridge: The bridge.
        announce: Called from a thread with a line for the user.
        on_snapshot: Called from a thread when there is a new snapshot.

    Attributes:
        snapshot: The latest snapshot.
    """

    def __init__(
        self, bridge: Bridge, announce: Callable[[str], None], on_snapshot: Callable[[], None]
    ) -> None:
        self.snapshot = BridgeSnapshot()
        self._bridge = bridge
        self._announce = announce
        self._on_snapshot = on_snapshot
        self._stopping = threading.Event()
        self._stale = threading.Event()
        self._lock = threading.Lock()
        self._tracked: dict[str, None] = {}

    def start(self) -> None:
        """Take the first snapshot and start the threads."""
        self._take_snapshot()
        start_duty("shell-events", self._follow, ended=self._stopping.is_set)
        start_duty("shell-snapshots", self._refresh, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop the threads; they end within ``IDLE_S``."""
        self._stopping.set()
        self._stale.set()

    def track(self, job_id: str) -> None:
        """Announce a job when it finishes."""
        with self._lock:
            self._tracked[job_id] = None
            while len(self._tracked) > _TRACKED_MAX:
                self._tracked.pop(next(iter(self._tracked)))
        # It may have finished already.
        self._stale.set()

    def tracked(self) -> list[str]:
        """Return the ids of the background jobs that have not finished."""
        with self._lock:
            return list(self._tracked)

    def _follow(self) -> None:
        self._bridge.follower.watch_events(
            self._on_events,
            stopping=self._stopping,
            idle_s=IDLE_S,
            on_connected=self._stale.set,
            on_outage=lambda _: self._stale.set(),
        )

    def _on_events(self, events: list[JobEvent]) -> None:
        self._stale.set()
        for event in events:
            if event.status in FINAL and self._untrack(event.job_id):
                self._announce_finished(event.job_id)

    def _refresh(self) -> None:
        while not self._stopping.is_set():
            self._stale.wait(IDLE_S)
            self._stale.clear()
            if self._stopping.is_set():
                return
            self._take_snapshot()
            self._stopping.wait(BURST_S)

    def _take_snapshot(self) -> None:
        """Take a snapshot; announce finished background jobs whose event was missed."""
        was_unavailable = self.snapshot.is_unavailable
        try:
            page = self._bridge.reader.page(limit=_JOBS_MAX)
            seconds, micros = self._bridge.store.call("TIME")
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            workers = self._bridge.store.call(
                "ZCOUNT", self._bridge.reader.keys.workers, f"({now_ms}", "+inf"
            )
            for job_id in self._finished_unannounced():
                self._announce_finished(job_id)
        except (StoreUnreachable, StoreError) as error:
            self.snapshot = BridgeSnapshot(is_unavailable=True, jobs=self.snapshot.jobs)
            if not was_unavailable:
                self._announce(
                    f"{error.message} Until it is back, questions and commands run in this process, and"
                    " background jobs are spooled."
                )
        else:
            jobs = tuple(CompletionJob(job.job_id, job.status, _about(job)) for job in page.jobs)
            self.snapshot = BridgeSnapshot(summary=page.summary, workers=int(workers), jobs=jobs)
            if was_unavailable:
                self._announce("the store is back.")
        self._on_snapshot()

    def _finished_unannounced(self) -> list[str]:
        tracked = self.tracked()
        if not tracked:
            return []
        reader = self._bridge.reader
        replies = reader.read([("HGET", reader.keys.job(job_id), "status") for job_id in tracked])
        return [
            job_id
            for job_id, status in zip(tracked, replies, strict=True)
            if status is not None and status.decode() in FINAL and self._untrack(job_id)
        ]

    def _untrack(self, job_id: str) -> bool:
        """Stop tracking a job; return whether it was tracked, so that it is announced once."""
        with self._lock:
            return self._tracked.pop(job_id, self) is None

    def _announce_finished(self, job_id: str) -> None:
        try:
            record = self._bridge.reader.job(job_id)
        except JobNotFound:
            return
        except StoreUnreachable:
            self.track(job_id)
            raise
        self._announce(_finished(record))


def _about(record: JobRecord) -> str:
    return f"{record.status} {kind(record)} {what(record)}".strip()


def _finished(record: JobRecord) -> str:
    took = since(record.started_at, record.completed_at) if record.started_at else "no time"
    why = "" if record.status == "completed" else f": {one_line(record.reason)}"
    name = short_id(record.job_id)
    return f"job {name} {record.status} after {took}: {kind(record)} {what(record)}{why} ('logs {name}')"
