"""What clients are shown of a job type, whatever the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ingress.core.bridge import Bridge
from middleware.job.base import DEFAULT_PRIORITY
from middleware.job.carriers import Carrier
from middleware.job.registry import JobType
from ops.errors import StoreUnreachable
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
        schema: JSON Schema (2020-12) of its payload.
    """

    name: str
    origin: str
    queue: str
    workers: int | None
    summary: str
    defaults: TypeDefaults
    parameters: list[str]
    schema: dict[str, Any]

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
            workers=None if carriers is None else sum(job_type.name in item.types for item in carriers),
            summary=job_type.summary,
            defaults=TypeDefaults(
                timeout_s=limits.timeout_s,
                max_retries=limits.max_retries,
                backoff_min_s=limits.backoff_min_s,
                backoff_max_s=limits.backoff_max_s,
                priority=DEFAULT_PRIORITY if job_type.priority is None else job_type.priority,
            ),
            parameters=list(own),
            schema=schema,
        )


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
