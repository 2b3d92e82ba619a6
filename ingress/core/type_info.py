"""What clients are shown of a job type, whatever the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ingress.core.bridge import Bridge
from middleware.job.base import DEFAULT_PRIORITY
from middleware.job.carriers import Carrier
from middleware.job.registry import JobType
from middleware.job.types import JOB_TYPES
from ops.errors import StoreUnreachable
from ops.settings.rows import SettingRow
from ops.settings.table import Settings


class TypeDefaults(Struct, frozen=True, kw_only=True):
    """What a job of a type gets if its submission does not say otherwise.

    Attributes:
        timeout_s: Time limit of one attempt, in seconds.
        max_retries: Attempts after the first.
        backoff_min_s: Shortest pause before another attempt, in seconds.
        backoff_max_s: Longest pause before another attempt, in seconds.
        priority: From 1 (first) to 10 (last).
    """

    timeout_s: float
    max_retries: int
    backoff_min_s: float
    backoff_max_s: float
    priority: int


class TypeInfo(Struct, frozen=True, kw_only=True):
    """A job type.

    Attributes:
        name: Its name, the ``job_type`` of its jobs.
        origin: ``built-in``, or the module that declares its actor.
        queue: Queue that its jobs go to.
        workers: Number of running workers that carry it; None while the store is unavailable.
        summary: What it does, in one line.
        defaults: What its jobs get by default.
        parameters: Fields of its payload, in their order.
        needs_project: Whether its jobs must name a project.
        schema: JSON Schema (2020-12) of its payload.
        result_schema: JSON Schema of its result; None if it is not known.
        example: A payload; empty if the declaration has none.
    """

    name: str
    origin: str
    queue: str
    workers: int | None
    summary: str
    defaults: TypeDefaults
    parameters: list[str]
    needs_project: bool
    schema: dict[str, Any]
    result_schema: dict[str, Any] | None
    example: dict[str, Any]

    @classmethod
    def of(cls, job_type: JobType, settings: Settings, carriers: Sequence[Carrier] | None) -> TypeInfo:
        """Return what clients are shown of a job type.

        Args:
            job_type: The type.
            carriers: The live workers; None if they are unknown.
            settings: The settings; their ``[types]`` go before the defaults of the type.
        """
        limits = job_type.limits_of(settings)
        schema = job_type.json_schema()
        own = job_type.parameters if job_type.payload is None else tuple(schema.get("properties", ()))
        return cls(
            name=job_type.name,
            origin=job_type.origin,
            queue=job_type.queue,
            workers=None
            if carriers is None
            else sum(job_type.name in item.types and job_type.queue in item.queues for item in carriers),
            summary=job_type.summary,
            defaults=TypeDefaults(
                timeout_s=limits.timeout_s,
                max_retries=limits.max_retries,
                backoff_min_s=limits.backoff_min_s,
                backoff_max_s=limits.backoff_max_s,
                priority=DEFAULT_PRIORITY if job_type.priority is None else job_type.priority,
            ),
            parameters=list(own),
            needs_project=job_type.needs_project,
            schema=schema,
            result_schema=job_type.result_schema(),
            example=dict(job_type.example),
        )


def limit_rows(settings: Settings) -> list[SettingRow]:
    """Return the limits of each job type as a row of ``3ox config``."""
    declared = [job_type for job_type in JOB_TYPES.declared() if not job_type.internal]
    names = [name for name in settings.types if JOB_TYPES.get(name) is None]
    others = [JobType(name=name, summary="", payload=None) for name in names]
    return [
        SettingRow(
            f"types.{job_type.name if job_type.name.isalnum() else json_text(job_type.name)}",
            msgspec.to_builtins(job_type.limits_of(settings)),
            "3ox.toml" if job_type.name in settings.types else "default",
            f"Limits of {job_type.name}, times in seconds: [types] goes before its declaration.",
        )
        for job_type in (*declared, *others)
    ]


def json_text(text: str) -> str:
    """Return a text in quotes, as JSON and TOML write it."""
    return msgspec.json.encode(text).decode()


def all_types(bridge: Bridge) -> list[TypeInfo]:
    """Return the job types that clients may submit: the built-in ones, then the published ones by name."""
    settings, carriers = bridge.admission.latest(), _carriers(bridge)
    return [TypeInfo.of(job_type, settings, carriers) for job_type in bridge.admission.types.all()]


def find_type(bridge: Bridge, name: str) -> TypeInfo:
    """Return a job type.

    Raises:
        InvalidJob: No type has this name; the remedy names the nearest one.
        StoreUnreachable: The store is unavailable, and the type is not built in.
    """
    found = bridge.admission.types.require(name)
    return TypeInfo.of(found, bridge.admission.latest(), _carriers(bridge))


def _carriers(bridge: Bridge) -> list[Carrier] | None:
    try:
        return bridge.reader.carriers.live()
    except StoreUnreachable:
        return None
