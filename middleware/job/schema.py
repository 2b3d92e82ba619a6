"""Build, encode and decode jobs. ``base.py`` has what all jobs carry, ``types.py`` the job types."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from middleware.job.base import Job
from middleware.job.ids import new_job_id
from middleware.job.types import JOB_TYPES, Payload
from ops.errors import InvalidJob

__all__ = ["JOB_TYPES", "Job", "decode_job", "encode_job", "explain", "make_job"]

_encoder = msgspec.json.Encoder()


def encode_job(job: Job) -> bytes:
    """Return a job as compact JSON; defaults are left out."""
    return _encoder.encode(job)


def decode_job(data: bytes | str) -> Job:
    """Return the job that ``encode_job`` wrote.

    Raises:
        InvalidJob: The text is not JSON, or does not fit the schema.
    """
    try:
        job: Job = JOB_TYPES.decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise explain(error) from error
    return job


def make_job(job_type: str, payload: Payload | dict[str, Any], **fields: Any) -> Job:
    """Build and validate a job.

    Args:
        job_type: One of ``JOB_TYPES``.
        payload: The type's payload, as its struct or as a mapping.
        **fields: Fields of ``Job``.

    Raises:
        InvalidJob: Names the field at fault and the remedy.
    """
    JOB_TYPES.require(job_type, field="job_type")
    body = msgspec.to_builtins(payload) if isinstance(payload, Struct) else payload
    document = {"job_type": job_type, "payload": body}
    document.update({name: value for name, value in fields.items() if value is not None})
    document.setdefault("job_id", new_job_id())
    try:
        # The type's own struct: msgspec would resolve the union again each time, at ten times the cost.
        return msgspec.convert(document, type=JOB_TYPES.struct(job_type))
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
