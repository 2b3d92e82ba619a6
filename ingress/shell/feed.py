"""What the shell knows of the bridge without asking: kept fresh by the store's events.

Toolbar and completion read it while a key is pressed, so it never waits for the store.
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

#: Without an event it is read anew so often: workers come and go without one.
IDLE_S = 5.0
#: A burst of events leads to one reading in so long.
BURST_S = 0.25
_JOBS_MAX = 50
#: More background jobs than this are not announced; the oldest are let go.
_TRACKED_MAX = 1000


class KnownJob(Struct, frozen=True):
    """A job as completion shows it."""

    job_id: str
    status: str
    about: str


class View(Struct, frozen=True, kw_only=True):
    """The bridge at one moment.

    Attributes:
        away: Whether the store does not answer; the rest is then what was known last.
        summary: Jobs by state.
        workers: How many are well.
        jobs: The latest ones, newest first.
    """

    away: bool = False
    summary: dict[str, int] = {}
    workers: int = 0
    jobs: tuple[KnownJob, ...] = ()


class Feed:
    """Keeps a ``View``, and says when a background job has ended.

    Args:
        bridge: Which bridge.
        tell: Takes a line for the user; called from a thread.
        changed: Called, from a thread, when there is a new view.
    """

    def __init__(self, bridge: Bridge, tell: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.view = View()
        self._bridge = bridge
        self._tell = tell
        self._changed = changed
        self._stopping = threading.Event()
        self._stale = threading.Event()
        self._lock = threading.Lock()
        self._tracked: dict[str, None] = {}

    def start(self) -> None:
        """Begin to listen; the first view stands when this returns, if the store answers."""
        self._read()
        start_duty("shell-listen", self._listen, ended=self._stopping.is_set)
        start_duty("shell-read", self._keep_fresh, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop; its threads end with the process, or at their next turn."""
        self._stopping.set()
        self._stale.set()

    def track(self, job_id: str) -> None:
        """Say it when this job has ended."""
        with self._lock:
            self._tracked[job_id] = None
            while len(self._tracked) > _TRACKED_MAX:
                self._tracked.pop(next(iter(self._tracked)))
        # It may have ended before we knew that it matters.
        self._stale.set()

    def tracked(self) -> list[str]:
        """Give the background jobs that have not ended."""
        with self._lock:
            return list(self._tracked)

    def _listen(self) -> None:
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
                self._announce(event.job_id)

    def _keep_fresh(self) -> None:
        while not self._stopping.is_set():
            self._stale.wait(IDLE_S)
            self._stale.clear()
            if self._stopping.is_set():
                return
            self._read()
            self._stopping.wait(BURST_S)

    def _read(self) -> None:
        """Make a new view; look after background jobs whose end was not heard."""
        was_away = self.view.away
        try:
            page = self._bridge.reader.page(limit=_JOBS_MAX)
            seconds, micros = self._bridge.store.call("TIME")
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            workers = self._bridge.store.call(
                "ZCOUNT", self._bridge.reader.keys.workers, f"({now_ms}", "+inf"
            )
            for job_id in self._ended_unheard():
                self._announce(job_id)
        except (StoreUnreachable, StoreError) as error:
            self.view = View(away=True, jobs=self.view.jobs)
            if not was_away:
                self._tell(
                    f"{error.message} Until it is back, questions and commands are carried out in this"
                    " process, and what goes to the background is spooled."
                )
        else:
            jobs = tuple(KnownJob(job.job_id, job.status, _about(job)) for job in page.jobs)
            self.view = View(summary=page.summary, workers=int(workers), jobs=jobs)
            if was_away:
                self._tell("the store is back.")
        self._changed()

    def _ended_unheard(self) -> list[str]:
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
        """Let go of a job; tells whether it was tracked, so that it is announced once."""
        with self._lock:
            return self._tracked.pop(job_id, self) is None

    def _announce(self, job_id: str) -> None:
        try:
            record = self._bridge.reader.job(job_id)
        except JobNotFound:
            return
        except StoreUnreachable:
            self.track(job_id)
            raise
        self._tell(_ended(record))


def _about(record: JobRecord) -> str:
    return f"{record.status} {kind(record)} {what(record)}".strip()


def _ended(record: JobRecord) -> str:
    took = since(record.started_at, record.completed_at) if record.started_at else "no time"
    why = "" if record.status == "completed" else f": {one_line(record.reason)}"
    name = short_id(record.job_id)
    return f"job {name} {record.status} after {took}: {kind(record)} {what(record)}{why} ('logs {name}')"
