"""One schema for every way in.

A job is one of seven tagged structs that differ in the type of their payload only. What never changes
after dispatch stands here; what a job lives through (status, progress, attempts) is in ``records.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct, field

from middleware.job.ids import new_job_id
from middleware.job.types import (
    AskPayload,
    DeliverPayload,
    HeartbeatPayload,
    IngestFilePayload,
    Payload,
    RestRequestPayload,
    ShellCmdPayload,
    TaskCustomPayload,
    TelegramPayload,
)
from ops.errors import InvalidJob

SCHEMA_VERSION = 1
DEFAULT_PRIORITY = 5
#: Key in a job's metadata under which the rule of the policy stands that let it in; no door may set it.
POLICY_MARK = "policy"
#: More attempts than this are a loop, not a retry; it also bounds the receipt chain.
MAX_RETRIES_LIMIT = 100

#: The end of a text. In Python `$` lets a line end follow, which would break keys and lists in the store.
_END = r"(?!\n)$"
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9][A-Za-z0-9._@:+-]*{_END}")]
Short = Annotated[str, Meta(max_length=256)]
#: As ``new_job_id`` makes them; wide enough for ids of another making, narrow enough for key and file names.
JobId = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[0-9A-Za-z][0-9A-Za-z_-]*{_END}")]

Priority = Annotated[int, Meta(ge=1, le=10)]
#: Seconds.
TimeLimit = Annotated[float, Meta(gt=0, le=30 * 86_400)]
Retries = Annotated[int, Meta(ge=0, le=MAX_RETRIES_LIMIT)]
Dependencies = Annotated[list[JobId], Meta(max_length=100)]
OnDependencyFailure = Literal["skip", "fail", "run"]
Resources = dict[Name, Annotated[int, Meta(ge=1)]]
Metadata = dict[Short, Short]


class JobBase(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="job_type",
    gc=False,  # plain data, in no cycle; batches of thousands would keep the collector busy
):
    """What every job carries, whatever its type.

    Attributes:
        job_id: Sortable by time, see ``ids.py``.
        trace_id: Follows a command through all the jobs it causes; the job's own id by default.
        source: The door it came through: ``cli``, ``rest``, ``telegram``, ``station``, ``clock``, ...
        actor: Who commanded it: a login name, a chat id, the name of a token.
        trust: How much the door knows of who commands: ``operator`` (a login on this machine, 3ox.toml),
            ``member`` (a token, a signature, an allowed chat) or ``untrusted`` (what came as a file or text).
        priority: 1 is first, 10 last; its project's when absent, else ``DEFAULT_PRIORITY``.
        timeout_seconds: Bound on one attempt; the job type's default when absent.
        max_retries: Attempts after the first; the job type's default when absent.
        depends_on: Job ids that have to be completed first.
        on_dependency_failure: What becomes of this job when one of those does not complete: ``skip`` (it is
            cancelled), ``fail`` (a dead letter) or ``run`` (that one counts as done).
        resources: Named resources this job occupies while it runs, with the amount of each.
        idempotency_key: The same key answers with the same job.
        metadata: Free text pairs that travel along.
    """

    payload: Any
    job_id: JobId = field(default_factory=new_job_id)
    trace_id: Short | None = None
    source: Name = "python"
    actor: Short = ""
    trust: Literal["operator", "member", "untrusted"] = "operator"
    project: Name | None = None
    session_id: Name | None = None
    priority: Priority | None = None
    timeout_seconds: TimeLimit | None = None
    max_retries: Retries | None = None
    depends_on: Dependencies = []
    on_dependency_failure: OnDependencyFailure = "skip"
    resources: Resources = {}
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    metadata: Metadata = {}
    version: int = SCHEMA_VERSION

    @property
    def job_type(self) -> str:
        """The tag: ``ask``, ``shell.cmd``, ..."""
        return _Registry.type_of[type(self)]

    @property
    def rank(self) -> int:
        """The priority, which is ``DEFAULT_PRIORITY`` while none has been filled in."""
        return DEFAULT_PRIORITY if self.priority is None else self.priority

    @property
    def trace(self) -> str:
        """The trace id, which is the job's own id unless a parent gave one."""
        return self.job_id if self.trace_id is None else self.trace_id


class AskJob(JobBase, frozen=True, kw_only=True, tag="ask"):
    """A question for a language model."""

    payload: AskPayload


class IngestFileJob(JobBase, frozen=True, kw_only=True, tag="ingest.file"):
    """A file to take in."""

    payload: IngestFilePayload


class TelegramJob(JobBase, frozen=True, kw_only=True, tag="telegram"):
    """A message from a chat."""

    payload: TelegramPayload


class RestRequestJob(JobBase, frozen=True, kw_only=True, tag="rest.request"):
    """A request to a configured endpoint."""

    payload: RestRequestPayload


class ShellCmdJob(JobBase, frozen=True, kw_only=True, tag="shell.cmd"):
    """A command to run."""

    payload: ShellCmdPayload


class HeartbeatJob(JobBase, frozen=True, kw_only=True, tag="heartbeat"):
    """A canary."""

    payload: HeartbeatPayload = HeartbeatPayload()


class TaskCustomJob(JobBase, frozen=True, kw_only=True, tag="task.custom"):
    """A task for a project."""

    project: Name
    payload: TaskCustomPayload


class DeliverJob(JobBase, frozen=True, kw_only=True, tag="deliver"):
    """The delivery of a job's result to one sink; no door takes it, the end of the job makes it."""

    payload: DeliverPayload


class UnreadableJob(JobBase, frozen=True, kw_only=True, tag="unreadable"):
    """A job in the store that this version cannot read: written by a newer version, or by hand.

    Attributes:
        written_type: The job type that its text names; ``unknown`` if it names none.
    """

    payload: Any = {}
    written_type: str = "unknown"

    @classmethod
    def of(cls, job_id: str, data: bytes) -> UnreadableJob:
        """Return what can be said of a job that ``decode_job`` refuses.

        Args:
            job_id: Its id in the store.
            data: Its text in the store.
        """
        try:
            written = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.MsgspecError:
            written = {}
        return cls(
            job_id=job_id,
            source="unknown",
            metadata={"unreadable": "true"},
            written_type=str(written.get("job_type", "unknown")),
        )

    @property
    def job_type(self) -> str:
        """The job type that its text names."""
        return self.written_type


Job: TypeAlias = (
    AskJob | IngestFileJob | TelegramJob | RestRequestJob | ShellCmdJob | HeartbeatJob | TaskCustomJob
)


class _Registry:
    """The job types by name, and which payload belongs to which."""

    type_of: ClassVar[dict[type[JobBase], str]] = {}
    by_type: ClassVar[dict[str, type[JobBase]]] = {
        str(kind.__struct_config__.tag): kind for kind in get_args(Job)
    }


_Registry.type_of = {kind: name for name, kind in _Registry.by_type.items()} | {DeliverJob: "deliver"}
JOB_TYPES: tuple[str, ...] = tuple(_Registry.by_type)

_decoder = msgspec.json.Decoder(Job | DeliverJob)
_encoder = msgspec.json.Encoder()


def encode_job(job: Job) -> bytes:
    """Encode a job as compact JSON; defaults are left out."""
    return _encoder.encode(job)


def decode_job(data: bytes | str) -> Job:
    """Decode a job that ``encode_job`` wrote.

    Raises:
        InvalidJob: The text is no JSON, or does not fit the schema.
    """
    try:
        job: Job = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise explain(error) from error
    return job


def make_job(job_type: str, payload: Payload | dict[str, Any], **fields: Any) -> Job:
    """Build and validate a job.

    Args:
        job_type: One of ``JOB_TYPES``.
        payload: The type's payload, as its struct or as a mapping.
        **fields: Fields of ``JobBase``.

    Raises:
        InvalidJob: Names the field at fault and the remedy.
    """
    if job_type not in _Registry.by_type:
        raise InvalidJob(
            f"there is no job type {job_type!r}.",
            remedy=f"Use one of: {', '.join(JOB_TYPES)}.",
            field="job_type",
        )
    body = msgspec.to_builtins(payload) if isinstance(payload, Struct) else payload
    document = {"job_type": job_type, "payload": body}
    document.update({name: value for name, value in fields.items() if value is not None})
    document.setdefault("job_id", new_job_id())
    try:
        # Its own struct, not the union, which msgspec would resolve anew each time at ten times the cost.
        job: Job = msgspec.convert(document, type=_Registry.by_type[job_type])  # type: ignore[assignment]
    except msgspec.ValidationError as error:
        raise explain(error, job_type) from error
    return job


def explain(error: msgspec.MsgspecError, job_type: str = "") -> InvalidJob:
    """Turn msgspec's complaint into ours: what is wrong, which field, what would be right."""
    text = str(error)
    complaint, _, path = text.replace(" - at `key` in `$", " - at `$").partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    if "unknown field `" in complaint:
        unknown = complaint.split("unknown field `", 1)[1].rstrip("`")
        where = f"{where}.{unknown}".lstrip(".")
        kind = _Registry.by_type.get(job_type)
        allowed = _fields_at(kind, where) if kind is not None else ()
        remedy = f"Remove it, or use one of: {', '.join(allowed)}." if allowed else "Remove it."
        return InvalidJob(f"the job has an unknown field {where!r}.", remedy=remedy, field=where)
    if "missing required field `" in complaint:
        missing = complaint.split("missing required field `", 1)[1].rstrip("`")
        where = f"{where}.{missing}".lstrip(".")
        return InvalidJob(f"the job lacks the field {where!r}.", remedy="Add it.", field=where)
    named = f"field {where!r}" if where else "the job"
    return InvalidJob(f"{named} is not valid: {complaint}.", remedy="Correct the value.", field=where)


def _fields_at(kind: type[JobBase], where: str) -> tuple[str, ...]:
    if where.startswith("payload."):
        payload = msgspec.structs.fields(kind)
        target = next(item.type for item in payload if item.name == "payload")
        return tuple(item.name for item in msgspec.structs.fields(target))
    return tuple(item.name for item in msgspec.structs.fields(kind))
