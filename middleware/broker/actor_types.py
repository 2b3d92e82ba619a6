"""The job type that follows from the declaration of a Dramatiq actor."""

from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
from dramatiq import Actor

from middleware.job.base import DEFAULT_PRIORITY, MAX_RETRIES_LIMIT, TypeName
from middleware.job.registry import JobType
from middleware.job.signature import ActorSignature
from ops.settings.work import TypeOverrides

#: Dramatiq's defaults (``dramatiq/middleware/retries.py``, ``time_limit.py`` of version 2.2), in its units.
_MAX_RETRIES = 20
_MIN_BACKOFF_MS = 15_000
_MAX_BACKOFF_MS = 7 * 86_400_000
_TIME_LIMIT_MS = 600_000
#: The longest time limit of a job, in seconds; see ``middleware.job.base.TimeLimit``.
_TIME_LIMIT_MAX_S = 30 * 86_400.0


def job_type_of(actor: Actor[Any, Any]) -> JobType:
    """Return the job type of an actor that a user declares.

    Args:
        actor: Its options are those of Dramatiq, and ``runs_programs=True`` for one that the policy shall
            guard as it guards commands.

    Raises:
        ValueError: Its name cannot be that of a job type.
    """
    try:
        msgspec.convert(actor.actor_name, TypeName)
    except msgspec.ValidationError:
        raise ValueError(
            f"The actor name {actor.actor_name!r} is not valid: use letters, digits and . _ @ : + -, at most "
            "64 of them; set actor_name=..."
        ) from None
    options, signature = actor.options, ActorSignature(actor.fn)
    text = inspect.getdoc(getattr(actor.fn, "perform", actor.fn)) or ""
    return JobType(
        name=actor.actor_name,
        summary=text.partition("\n")[0],
        payload=None,
        queue=actor.queue_name,
        priority=priority_of(actor.priority),
        origin=getattr(actor.fn, "__module__", None) or type(actor.fn).__module__,
        signature=signature,
        parameters=tuple(signature.parameters),
        limits=TypeOverrides(
            timeout_s=time_limit_s(options.get("time_limit", _TIME_LIMIT_MS)),
            max_retries=max_retries_of(options.get("max_retries", _MAX_RETRIES)),
            backoff_min_s=options.get("min_backoff", _MIN_BACKOFF_MS) / 1000,
            backoff_max_s=min(options.get("max_backoff", _MAX_BACKOFF_MS), _MAX_BACKOFF_MS) / 1000,
        ),
        runs_programs=bool(options.get("runs_programs", False)),
    )


def priority_of(priority: int) -> int:
    """Return the priority of a job: Dramatiq's 0 is our 5, -4 our 1 and 5 our 10; beyond that it is cut."""
    return max(1, min(10, DEFAULT_PRIORITY + priority))


def time_limit_s(limit_ms: float | None) -> float:
    """Return a time limit in seconds; 30 days for None and for infinity, which is the longest one."""
    if limit_ms is None or math.isinf(limit_ms):
        return _TIME_LIMIT_MAX_S
    return max(0.001, min(limit_ms / 1000, _TIME_LIMIT_MAX_S))


def max_retries_of(retries: int | None) -> int:
    """Return the number of retries; 100 for None (Dramatiq: any number), which is the most there may be."""
    return MAX_RETRIES_LIMIT if retries is None else max(0, min(retries, MAX_RETRIES_LIMIT))
