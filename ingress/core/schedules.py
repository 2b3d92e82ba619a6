"""The schedules of ``3ox.toml``: read, checked, and read again when the file has changed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ingress.core.schedule_timing import Cron, Every, Timing, parse_every, parse_zone
from middleware.job.ids import ALPHABET, ID_LENGTH, new_job_id
from middleware.job.records import utc
from middleware.job.schema import Job, make_job
from ops.errors import BridgeError, SettingsError
from ops.logs import get_logger
from ops.settings.live import LiveSettings
from ops.settings.load import ScheduleSettings
from ops.store.client import Store

SOURCE = "clock"
#: Hash in the store that holds the ``ScheduleMark`` of each schedule, after the key prefix.
MARKS_KEY = "schedules"
#: With missed = "skip" and no latest_s, a run that is later than this is missed: about what a change of the
#: leader takes, which is no reason to leave a run out.
SKIP_LATEST_S = 5.0
#: What a schedule says of its job; the rest is the clock's to say.
_JOB_FIELDS = (
    "job_type",
    "payload",
    "project",
    "session_id",
    "priority",
    "timeout_seconds",
    "max_retries",
    "resources",
    "metadata",
)

log = get_logger(__name__)


class Schedule(Struct, frozen=True, kw_only=True):
    """One ``[[schedule]]``, checked.

    Attributes:
        id: Its name.
        timing: When it runs.
        fingerprint: Changes with the timing, and with nothing else.
        job: Fields of its jobs.
        missed: What becomes of a run that could not be started in time: ``run`` or ``skip``.
        latest_s: A run may start so much later than its time; None: as late as it gets.
    """

    id: str
    timing: Timing
    fingerprint: str
    job: dict[str, Any]
    missed: str
    latest_s: float | None

    def skip_reason(self, run_ms: int, now_ms: int) -> str | None:
        """Tell why a run is not started any more; None if it is."""
        late_s = (now_ms - run_ms) / 1000
        latest_s = SKIP_LATEST_S if self.latest_s is None and self.missed == "skip" else self.latest_s
        if latest_s is None or late_s <= latest_s:
            return None
        told = "" if self.latest_s is None else f", latest_s {self.latest_s:g}"
        return f"missed: due at {utc(run_ms)}, {late_s:.0f} s ago, policy {self.missed}{told}"

    def make_job(self, run_ms: int, *, late_s: float, missed: str | None = None) -> Job:
        """Make the job of one run; the same run gives the same job id and idempotency key every time.

        Args:
            run_ms: The run's time.
            late_s: How much later than that it is.
            missed: What is done with a missed run, for its metadata.

        Raises:
            InvalidJob: The schedule's job does not fit its type.
        """
        run_at = str(utc(run_ms))
        metadata = {"schedule": self.id, "run_at": run_at, **self.job.get("metadata", {})}
        if late_s >= 1:
            metadata["late_s"] = f"{late_s:.1f}"
        if missed is not None:
            metadata["missed"] = missed
        return make_job(
            **{**self.job, "metadata": metadata},
            job_id=run_job_id(self.id, run_ms),
            source=SOURCE,
            actor=f"schedule:{self.id}",
            trust="operator",
            idempotency_key=f"schedule:{self.id}:{run_at}",
        )


def run_job_id(schedule_id: str, run_ms: int) -> str:
    """Give the id of a run's job, always the same one.

    The idempotency key is forgotten after ``idempotency_ttl_s``; the id is known for as long as the job is.
    """
    digest = hashlib.sha256(f"{schedule_id}:{run_ms}".encode()).digest()
    tail = "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[: ID_LENGTH // 2])
    return new_job_id(run_ms)[: ID_LENGTH // 2] + tail


def make_schedules(rows: Sequence[ScheduleSettings]) -> list[Schedule]:
    """Check the schedules of the settings.

    Raises:
        SettingsError: One of them cannot be; names it, and the remedy.
    """
    schedules: dict[str, Schedule] = {}
    for row in rows:
        if row.id in schedules:
            raise SettingsError(
                f"two schedules in 3ox.toml are called {row.id!r}.", remedy="Give each an id of its own."
            )
        schedules[row.id] = _make(row)
    return list(schedules.values())


def _make(row: ScheduleSettings) -> Schedule:
    where = f"of the schedule {row.id!r} in 3ox.toml"
    unknown = next((name for name in row.job if name not in _JOB_FIELDS), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, _JOB_FIELDS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"the job {where} has an unknown key {unknown!r}.",
            remedy=f"{hint}Known: {', '.join(_JOB_FIELDS)}.",
        )
    if "job_type" not in row.job:
        raise SettingsError(f"the job {where} lacks 'job_type'.", remedy="Add it.")
    schedule = Schedule(
        id=row.id,
        timing=_timing(row, where),
        fingerprint=f"cron {row.cron} {row.timezone}" if row.cron is not None else f"every {row.every}",
        job={"payload": {}, **row.job},
        missed=row.missed,
        latest_s=row.latest_s,
    )
    try:
        schedule.make_job(0, late_s=0.0)
    except BridgeError as error:
        raise SettingsError(f"the job {where}: {error.message}", remedy=error.remedy) from error
    return schedule


def _timing(row: ScheduleSettings, where: str) -> Cron | Every:
    if (row.cron is None) == (row.every is None):
        raise SettingsError(
            f"the schedule {row.id!r} in 3ox.toml needs either cron or every.", remedy="Give one of them."
        )
    zone = parse_zone(row.timezone, f"timezone {where}")
    if row.cron is not None:
        return Cron(row.cron, zone, f"cron {where}")
    return parse_every(row.every if row.every is not None else 0, f"every {where}")


class ScheduleMark(Struct, frozen=True):
    """How far the runs of a schedule have been processed.

    Attributes:
        done_ms: All runs up to this time have been processed, in milliseconds since 1970.
        timing: Fingerprint of the timing that ``done_ms`` belongs to.
    """

    done_ms: int
    timing: str


def read_marks(store: Store, prefix: str) -> dict[str, ScheduleMark]:
    """Return the marks of all schedules by schedule id.

    Args:
        store: The bridge's store.
        prefix: Prefix of the bridge's keys.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    flat = store.call("HGETALL", f"{prefix}{MARKS_KEY}")
    return {
        flat[at].decode(): msgspec.json.decode(flat[at + 1], type=ScheduleMark)
        for at in range(0, len(flat), 2)
    }


class ScheduleBook:
    """The schedules as they are in the file now.

    Args:
        live: The settings of this process.

    Attributes:
        loaded: The settings that count now.
        schedules: The schedules that count now.

    Raises:
        SettingsError: One of the schedules is not valid.
    """

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self.loaded = self._seen = live.loaded()
        self.schedules = make_schedules(self.loaded.settings.schedule)

    def refresh(self) -> bool:
        """Take up a changed file; schedules that are not valid are logged, and the old settings count.

        Returns:
            Whether other settings count now.
        """
        fresh = self._live.loaded()
        if fresh is self._seen:
            return False
        self._seen = fresh
        try:
            schedules = make_schedules(fresh.settings.schedule)
        except SettingsError as error:
            log.warning("schedules.invalid", reason=str(error))
            return False
        self.loaded, self.schedules = fresh, schedules
        log.info("schedules.loaded", schedules=[schedule.id for schedule in schedules])
        return True
