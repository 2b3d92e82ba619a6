"""All job types that a process can submit: built in, declared by its own actors, and published by workers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from middleware.job.registry import JobType, nearest
from middleware.job.types import JOB_TYPES
from ops.errors import InvalidJob, StoreUnreachable
from ops.settings.table import Settings
from ops.settings.work import TypeOverrides, TypeSettings

#: Age after which the published types are read again: for a known and for an unknown name, in seconds.
_FRESH_S = 5.0
_FRESH_FOR_UNKNOWN_S = 0.5


class PublishedType(Struct, frozen=True, omit_defaults=True):
    """Description of an actor, as a worker writes it to the store.

    Attributes:
        queue: Queue of its jobs.
        summary: First line of its docstring.
        origin: Module that declares it.
        parameters: Names of its parameters, in their order.
        schema: JSON Schema of its payload.
        limits: Its limits, as far as they differ from the general defaults.
        priority: Priority of its jobs.
        runs_programs: Whether the policy treats its jobs as it treats commands.
    """

    queue: str
    summary: str = ""
    origin: str = ""
    parameters: tuple[str, ...] = ()
    schema: dict[str, object] = {}
    limits: TypeOverrides = TypeOverrides()
    priority: int | None = None
    runs_programs: bool = False

    @classmethod
    def of(cls, job_type: JobType) -> PublishedType:
        """Return the description of a type that this process declares."""
        return cls(
            queue=job_type.queue,
            summary=job_type.summary,
            origin=job_type.origin,
            parameters=job_type.parameters,
            schema=job_type.json_schema(),
            limits=job_type.limits,
            priority=job_type.priority,
            runs_programs=job_type.runs_programs,
        )

    def job_type(self, name: str) -> JobType:
        """Return the job type of this name."""
        return JobType(
            name=name,
            summary=self.summary,
            payload=None,
            queue=self.queue,
            priority=self.priority,
            origin=self.origin,
            schema=self.schema,
            parameters=self.parameters,
            limits=self.limits,
            runs_programs=self.runs_programs,
        )


class TypeDirectory:
    """The job types that this process knows.

    Args:
        read_published: Returns the published types, name to JSON of ``PublishedType``; called at most every
            5 s, for an unknown name at most every 0.5 s. By default there are none.
    """

    def __init__(self, read_published: Callable[[], Mapping[str, bytes]] = dict) -> None:
        self._read_published = read_published
        self._declared: dict[str, JobType] = {}
        self._published: dict[str, JobType] = {}
        self._read_at_s = float("-inf")
        self._lock = threading.Lock()

    def declare(self, job_type: JobType) -> None:
        """Register the type of an actor of this process; a second declaration replaces the first.

        Raises:
            ValueError: The name is that of a built-in type.
        """
        if JOB_TYPES.get(job_type.name) is not None:
            raise ValueError(f"{job_type.name!r} is the name of a built-in job type; choose another one")
        self._declared[job_type.name] = job_type

    def forget(self, name: str) -> None:
        """Remove the type of an actor of this process."""
        del self._declared[name]

    def declared(self) -> tuple[JobType, ...]:
        """Return the types of this process's own actors."""
        return tuple(self._declared.values())

    def find(self, name: str) -> JobType | None:
        """Return a job type; None if it is unknown.

        Raises:
            StoreUnreachable: The type is not known here, and no published type has been read yet.
        """
        known = self._declared.get(name)
        if known is None:
            known = JOB_TYPES.get(name)
        if known is not None:
            return known
        published = self._published.get(name)
        self._refresh(_FRESH_FOR_UNKNOWN_S if published is None else _FRESH_S)
        return self._published.get(name, published)

    def require(self, name: str, *, field: str = "job_type") -> JobType:
        """Return a job type that clients may submit.

        Raises:
            InvalidJob: The name is unknown; the error quotes the nearest one and all known ones.
            StoreUnreachable: See ``find``.
        """
        found = self.find(name)
        if found is None or found.internal:
            raise InvalidJob(f"Unknown job type {name!r}.", remedy=nearest(name, self.names()), field=field)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of all types that clients may submit: built-in ones first, then in order."""
        return tuple(job_type.name for job_type in self.all())

    def all(self) -> tuple[JobType, ...]:
        """Return all types that clients may submit; while the store is unavailable, the last known ones."""
        with contextlib.suppress(StoreUnreachable):  # the types of this process are known without the store
            self._refresh(_FRESH_S)
        others = {**self._published, **self._declared}
        built_in = tuple(job_type for job_type in JOB_TYPES.declared() if not job_type.internal)
        return (*built_in, *(others[name] for name in sorted(others)))

    def limits(self, name: str, settings: Settings) -> TypeSettings:
        """Return the limits of a type; the general ones if it is unknown."""
        known = self.find(name)
        return JOB_TYPES.limits(name, settings) if known is None else known.limits_of(settings)

    def runs_programs(self, name: str) -> bool:
        """Return whether jobs of this type run programs; of an unknown type, assume that they do."""
        known = self.find(name)
        return known is None or known.runs_programs

    def _refresh(self, fresh_s: float) -> None:
        with self._lock:
            if time.monotonic() - self._read_at_s < fresh_s:
                return
            try:
                found = self._read_published()
            except StoreUnreachable:
                if self._read_at_s == float("-inf"):
                    raise
                # Keep the types that were read last; do not wait for the store each time.
                self._read_at_s = time.monotonic()
                return
            self._read_at_s = time.monotonic()
            self._published = {
                name: job_type
                for name, data in found.items()
                if (job_type := _decoded(name, data)) is not None
            }


def _decoded(name: str, data: bytes) -> JobType | None:
    """Return a published type; None if it cannot be decoded: a newer version may have written it."""
    try:
        return msgspec.json.decode(data, type=PublishedType).job_type(name)
    except msgspec.MsgspecError:
        return None
