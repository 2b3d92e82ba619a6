"""A Dramatiq message as a job, and back."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
from dramatiq import Message
from dramatiq.common import current_millis

from middleware.broker.actor_types import max_retries_of, time_limit_s
from middleware.broker.type_directory import TypeDirectory
from middleware.job.base import ActorJob, Job
from middleware.job.ids import job_id_of_message, made_ms
from middleware.job.schema import JOB_TYPES, explain, make_job
from ops.errors import InvalidJob

#: Options of a message that are fields of the job, beside those of the same meaning in Dramatiq.
_FIELDS = frozenset(
    {
        "actor",
        "depends_on",
        "idempotency_key",
        "metadata",
        "on_dependency_failure",
        "project",
        "resources",
        "session_id",
        "source",
        "trace_id",
    }
)

#: Option of a message with the time from which it may start, in ms since 1970, as Dramatiq's workers read it.
_ETA = "eta"

logger = logging.getLogger(__name__)


def delay_ms_of(message: Message[Any], delay: int | None) -> int:
    """Return the time until a message may start, in ms: its delay, else what is left until its ``eta``.

    An ``eta`` that is not a number is logged, and the message starts at once, as with Dramatiq.

    Args:
        message: To be enqueued.
        delay: The argument of ``enqueue``, in ms.
    """
    eta = message.options.get(_ETA)
    if delay is not None or eta is None:
        return 0 if delay is None else delay
    if not isinstance(eta, int | float) or not math.isfinite(eta):
        logger.warning("Invalid eta value for message %r: %r. It starts at once.", message.message_id, eta)
        return 0
    return max(0, int(eta) - current_millis())


def job_of_message(message: Message[Any], types: TypeDirectory) -> Job:
    """Return the job of a message that ``send`` made.

    Args:
        message: Of a built-in type its only argument is the payload, its options are fields of the job. Of
            any other type it is Dramatiq's.
        types: The job types.

    Raises:
        InvalidJob: The job type is unknown, or an argument does not fit; names the field.
    """
    if JOB_TYPES.get(message.actor_name) is not None:
        return _built_in_job(message)
    options = dict(message.options)
    options.pop(_ETA, None)  # see delay_ms_of; Dramatiq's worker would delay the message again
    fields = {name: options.pop(name) for name in _FIELDS & options.keys()}
    if "time_limit" in options:
        fields["timeout_seconds"] = time_limit_s(options["time_limit"])
    if "max_retries" in options:
        fields["max_retries"] = max_retries_of(options["max_retries"])
    job_type = types.require(message.actor_name)
    payload, positional = _arguments(message, types)
    job_id = job_id_of_message(message.message_id, message.message_timestamp)
    document = {
        **fields,
        "job_type": message.actor_name,
        "job_id": job_id,
        "payload": payload,
        "positional": positional,
        "queue": message.queue_name if message.queue_name else job_type.queue,
        "message_id": None if message.message_id == job_id else message.message_id,
        "options": options,
    }
    try:
        return msgspec.convert(document, type=ActorJob)
    except msgspec.ValidationError as error:
        raise explain(error) from error


def _built_in_job(message: Message[Any]) -> Job:
    if len(message.args) > 1 or (message.args and message.kwargs):
        raise InvalidJob(
            f"{message.actor_name} takes one argument, its payload; this message has "
            f"{len(message.args) + len(message.kwargs)}.",
            remedy="Pass the payload as a mapping, or its fields by name.",
            field="payload",
        )
    payload = message.args[0] if message.args else message.kwargs
    return make_job(message.actor_name, payload, **message.options)


def _arguments(message: Message[Any], types: TypeDirectory) -> tuple[dict[str, Any], int]:
    job_type = types.require(message.actor_name)
    if job_type.signature is not None:
        bound = job_type.signature.bind(message.args, message.kwargs)
        return bound.payload, bound.positional
    # An actor of another process: its parameters are published in their order.
    names = [name for name in job_type.parameters if not name.startswith("*")]
    if len(message.args) > len(names):
        raise InvalidJob(
            f"{message.actor_name} takes {len(names)} positional arguments at most, not {len(message.args)}.",
            remedy=f"Its parameters are: {', '.join(job_type.parameters) or 'none'}.",
            field=f"payload[{len(names)}]",
        )
    named = dict(zip(names, message.args, strict=False))
    return {**named, **message.kwargs}, len(named)


def message_of_job(
    job: Job, types: TypeDirectory, *, queue: str, created_ms: int, options: bytes = b""
) -> Message[Any]:
    """Return the message with which the job's actor is called.

    Args:
        job: From the store.
        types: The job types.
        queue: Queue that it was fetched from.
        created_ms: When the job was created, in milliseconds since 1970.
        options: Options of the message as an earlier attempt left them, JSON; empty: as they were sent.
    """
    if not isinstance(job, ActorJob):
        return Message(
            queue_name=queue,
            actor_name=job.job_type,
            args=(job.payload,),
            kwargs={},
            options={},
            message_id=job.job_id,
            message_timestamp=created_ms,
        )
    job_type = types.find(job.job_type)
    args: tuple[Any, ...] = ()
    kwargs = job.payload
    if job_type is not None and job_type.signature is not None:
        args, kwargs = job_type.signature.unbind(job.payload, job.positional)
    return Message(
        queue_name=queue,
        actor_name=job.job_type,
        args=args,
        kwargs=kwargs,
        options=dict(job.options) if not options else msgspec.json.decode(options),
        message_id=job.job_id if job.message_id is None else job.message_id,
        message_timestamp=created_ms if job.message_id is None else made_ms(job.job_id),
    )
