"""Build, encode and decode jobs. ``base.py`` has what all jobs carry, ``registry.py`` what a job type is."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from middleware.job.base import ActorJob, Job
from middleware.job.ids import new_job_id
from middleware.job.types import JOB_TYPES, Payload
from ops.errors import InvalidJob

__all__ = ["JOB_TYPES", "ActorJob", "Job", "decode_job", "encode_job", "explain", "make_job"]

_encoder = msgspec.json.Encoder()
_BUILT_IN_START = b'{"job_type":"'


@cache
def _actor_job_decoder() -> msgspec.json.Decoder[ActorJob]:
    return msgspec.json.Decoder(ActorJob)  # takes 0.6 ms, which commands that only submit need not spend


def encode_job(job: Job) -> bytes:
    """Return a job as compact JSON; defaults are left out."""
    return _encoder.encode(job)


def decode_job(data: bytes | str) -> Job:
    """Return the job that ``encode_job`` wrote.

    Raises:
        InvalidJob: The text is not JSON, or does not fit the schema.
    """
    text = data.encode() if isinstance(data, str) else data
    # The type comes first in a job of a built-in type, and later in that of an actor.
    first_type = _first_type(text)
    declared = JOB_TYPES.decoder(first_type) if first_type else None
    problem: msgspec.MsgspecError | None = None
    if declared is not None:
        try:
            job: Job = declared.decode(text)
        except msgspec.MsgspecError as error:
            problem = error  # unless it is a job of a newer version: all but running it works
        else:
            return job
    try:
        other = _actor_job_decoder().decode(text)
        declared = JOB_TYPES.decoder(other.job_type) if problem is None else None
        return other if declared is None else declared.decode(text)
    except msgspec.MsgspecError as error:
        raise explain(error if problem is None else problem) from error


def _first_type(text: bytes) -> str:
    """Return the type that a job's JSON begins with; empty if it begins with anything else."""
    if not text.startswith(_BUILT_IN_START):
        return ""
    start = len(_BUILT_IN_START)
    return text[start : text.find(b'"', start)].decode(errors="replace")


def make_job(job_type: str, payload: Payload | dict[str, Any], **fields: Any) -> Job:
    """Build and validate a job.

    Args:
        job_type: A built-in type, or the name of an actor: then the payload is checked at submission, where
            the actor's parameters are known.
        payload: The type's payload, as its struct or as a mapping.
        **fields: Fields of ``Job``.

    Raises:
        InvalidJob: Names the field at fault and the remedy.
    """
    declared = JOB_TYPES.get(job_type)
    if declared is not None and declared.internal:
        JOB_TYPES.require(job_type, field="job_type")
    kind: type[Job] = ActorJob if declared is None else JOB_TYPES.struct(job_type)
    body = (
        payload if type(payload) is dict or not isinstance(payload, Struct) else msgspec.to_builtins(payload)
    )
    document = {"job_type": job_type, "payload": body}
    if fields:
        document.update({name: value for name, value in fields.items() if value is not None})
    if "job_id" not in document:
        document["job_id"] = new_job_id()
    try:
        # The type's own struct: msgspec would resolve the union again each time, at ten times the cost.
        return msgspec.convert(document, type=kind)
    except msgspec.ValidationError as error:
        raise explain(error, job_type) from error


def explain(error: msgspec.MsgspecError, job_type: str = "") -> InvalidJob:
    """Return our error for one of msgspec: what is wrong, which field, and the remedy."""
    text = str(error)
    complaint, _, path = text.replace(" - at `key` in `$", " - at `$").partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    if "unknown field `" in complaint:
        unknown = complaint.split("unknown field `", 1)[1].rstrip("`")
        where = f"{where}.{unknown}".lstrip(".")
        allowed = _fields_at(JOB_TYPES.struct(job_type), where) if job_type in JOB_TYPES else ()
        remedy = f"Remove it, or use one of: {', '.join(allowed)}." if allowed else "Remove it."
        return InvalidJob(f"Unknown field {where!r} of the job.", remedy=remedy, field=where)
    if "missing required field `" in complaint:
        missing = complaint.split("missing required field `", 1)[1].rstrip("`")
        where = f"{where}.{missing}".lstrip(".")
        return InvalidJob(f"Missing field {where!r} of the job.", remedy="Add it.", field=where)
    named = f"Field {where!r}" if where else "The job"
    return InvalidJob(f"{named} is not valid: {complaint}.", remedy="Correct the value.", field=where)


def _fields_at(kind: type[Job], where: str) -> tuple[str, ...]:
    fields = msgspec.structs.fields(kind)
    if where.startswith("payload."):
        payload = next(item.type for item in fields if item.name == "payload")
        fields = msgspec.structs.fields(payload)
    return tuple(item.name for item in fields)
