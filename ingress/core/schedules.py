"""The schedules of ``3ox.toml``: parsed, validated, and loaded again when the file changes."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ingress.core.bridge import Bridge
from ingress.core.schedule_timing import Cron, Every, Timing, parse_every, parse_zone
from middleware.job.ids import ALPHABET, ID_LENGTH, new_job_id
from middleware.job.records import utc
from middleware.job.schema import Job, make_job
from ops.errors import BridgeError, InvalidJob, SettingsError
from ops.logs import get_logger
from ops.settings.live import LiveSettings
from ops.settings.load import ScheduleSettings

SOURCE = "clock"
#: ``latest_s`` of ``missed = "skip"`` when it is not set: about the time that a change of leader takes, which
#: must not cause a run to be skipped.
SKIP_LATEST_S = 5.0
#: Keys of a schedule's ``job``; the scheduler sets all other fields.
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

#: Hash of the store with the ``ScheduleProgress`` of each schedule.
PROGRESS_KEY = "schedules"

log = get_logger(__name__)


class ScheduleProgress(Struct, frozen=True):
    """How far a schedule has been processed; stored as JSON.

    Attributes:
        done_ms: All runs up to this time have been handled, in milliseconds since 1970.
        timing: Fingerprint of the timing that ``done_ms`` refers to.
    """

    done_ms: int
    timing: str


def read_progress(bridge: Bridge) -> dict[str, ScheduleProgress]:
    """Return the progress of each schedule that has been processed, by schedule id.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    flat = bridge.store.call("HGETALL", f"{bridge.scripts.prefix}{PROGRESS_KEY}")
    return {
        flat[at].decode(): msgspec.json.decode(flat[at + 1], type=ScheduleProgress)
        for at in range(0, len(flat), 2)
    }


class Schedule(Struct, frozen=True, kw_only=True):
    """A valid ``[[schedule]]``.

    Attributes:
        id: Its name.
        timing: Its run times.
        fingerprint: Changes with the timing, and with nothing else.
        job: Fields of its jobs.
        missed: Policy for runs that could not start in time: ``run`` or ``skip``.
        latest_s: Longest delay after which a run still starts; None: no limit for ``run``, 5 s for ``skip``.
    """

    id: str
    timing: Timing
    fingerprint: str
    job: dict[str, Any]
    missed: str
    latest_s: float | None

    def skip_reason(self, run_ms: int, now_ms: int) -> str | None:
        """Return why a run must be skipped now; None if it still starts."""
        late_s = (now_ms - run_ms) / 1000
        latest_s = SKIP_LATEST_S if self.latest_s is None and self.missed == "skip" else self.latest_s
        if latest_s is None or late_s <= latest_s:
            return None
        limit = "" if self.latest_s is None else f", latest_s {self.latest_s:g}"
        return f"missed: due at {utc(run_ms)}, {late_s:.0f} s ago, policy {self.missed}{limit}"

    def make_job(self, run_ms: int, *, late_s: float, missed: str | None = None) -> Job:
        """Build the job of a run; the same run always has the same job id and idempotency key.

        Args:
            run_ms: When the run is due, in milliseconds since 1970.
            late_s: How long ago that was, in seconds.
            missed: How a missed run is handled, for the job's metadata.

        Raises:
            InvalidJob: The payload does not match the job type.
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
    """Return the id of a run's job, which is always the same.

    The store forgets the idempotency key after ``idempotency_ttl_s``, but the id only with the job.
    """
    digest = hashlib.sha256(f"{schedule_id}:{run_ms}".encode()).digest()
    tail = "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[: ID_LENGTH // 2])
    return new_job_id(run_ms)[: ID_LENGTH // 2] + tail


def make_schedules(rows: Sequence[ScheduleSettings]) -> list[Schedule]:
    """Build the schedules of the settings.

    Raises:
        SettingsError: A schedule is not valid; the error names it.
    """
    schedules: dict[str, Schedule] = {}
    for row in rows:
        if row.id in schedules:
            raise SettingsError(
                f"Two schedules in 3ox.toml have the id {row.id!r}.", remedy="Use a unique id for each."
            )
        schedules[row.id] = _make(row)
    return list(schedules.values())


def unknown_types(bridge: Bridge, schedules: Sequence[Schedule]) -> dict[str, str]:
    """Return the schedules whose job type is neither built in nor published by a worker, with the reason.

    Their runs are refused until a worker publishes the type.

    Args:
        bridge: The bridge that knows the types.
        schedules: The schedules to check.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    unknown: dict[str, str] = {}
    for schedule in schedules:
        try:
            bridge.admission.types.require(schedule.job["job_type"])
        except InvalidJob as error:
            unknown[schedule.id] = f"{error.message} {error.remedy}"
    return unknown


def _make(row: ScheduleSettings) -> Schedule:
    where = f"of the schedule {row.id!r} in 3ox.toml"
    unknown = next((name for name in row.job if name not in _JOB_FIELDS), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, _JOB_FIELDS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"The job {where} has an unknown key {unknown!r}.",
            remedy=f"{hint}Known: {', '.join(_JOB_FIELDS)}.",
        )
    if "job_type" not in row.job:
        raise SettingsError(f"The job {where} lacks 'job_type'.", remedy="Add it.")
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
        raise SettingsError(f"The job {where}: {error.message}", remedy=error.remedy) from error
    return schedule


def _timing(row: ScheduleSettings, where: str) -> Cron | Every:
    if (row.cron is None) == (row.every is None):
        raise SettingsError(
            f"The schedule {row.id!r} in 3ox.toml needs either cron or every.", remedy="Set one of them."
        )
    zone = parse_zone(row.timezone, f"timezone {where}")
    if row.cron is not None:
        return Cron(row.cron, zone, f"cron {where}")
    return parse_every(row.every if row.every is not None else 0, f"every {where}")


class LiveSchedules:
    """The schedules of ``3ox.toml``, which can change while the process runs.

    Args:
        live: Settings of this process.

    Attributes:
        loaded: Settings in force.
        schedules: Schedules in force.

    Raises:
        SettingsError: A schedule is not valid.
    """

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self.loaded = self._seen = live.loaded()
        self.schedules = make_schedules(self.loaded.settings.schedule)

    def refresh(self) -> bool:
        """Load a changed file. If a schedule in it is not valid, log that and keep the previous ones.

        Returns:
            Whether the settings in force have changed.
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
