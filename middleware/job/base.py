"""What every job carries, whatever its type: the part of the contract that is fixed.

What never changes after submission is here; what happens to a job (status, progress, attempts) is in
``records.py``.

The annotations are not postponed: msgspec would evaluate their texts for each struct, 0.3 ms.
"""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Struct, field

from middleware.job.ids import new_job_id

SCHEMA_VERSION = 1
DEFAULT_PRIORITY = 5
#: Key in a job's metadata that holds the policy rule that admitted it; only the policy sets it.
POLICY_MARK = "policy"
#: More attempts than this are a loop, not a retry; it also bounds the receipt chain.
MAX_RETRIES_LIMIT = 100
#: Between several idempotency keys of one job: a character that no text contains by accident.
KEY_SEPARATOR = "\x1f"

#: End of a text. In Python `$` also matches before a line end, which would break keys and lists in the store.
_END = r"(?!\n)$"
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9][A-Za-z0-9._@:+-]*{_END}")]
Short = Annotated[str, Meta(max_length=256)]
#: Ids of ``new_job_id`` and those that a program chooses; safe in key and file names.
JobId = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[0-9A-Za-z][0-9A-Za-z_-]*{_END}")]

#: Actors may begin with an underscore.
TypeName = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9_][A-Za-z0-9._@:+-]*{_END}")
]
#: As Dramatiq has them.
QueueName = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z_][A-Za-z0-9._-]*{_END}")]

Priority = Annotated[int, Meta(ge=1, le=10)]
#: The longest time limit of an attempt, in seconds.
TIME_LIMIT_MAX_S = 30 * 86_400.0
#: Seconds.
TimeLimit = Annotated[float, Meta(gt=0, le=TIME_LIMIT_MAX_S)]
Retries = Annotated[int, Meta(ge=0, le=MAX_RETRIES_LIMIT)]
Dependencies = Annotated[list[JobId], Meta(max_length=100)]
OnDependencyFailure = Literal["skip", "fail", "run"]
Resources = dict[Name, Annotated[int, Meta(ge=1)]]
Metadata = dict[Short, Short]


class Job(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="job_type",
    gc=False,  # plain data, in no cycle; batches of thousands would keep the collector busy
):
    """A job; its type, a subclass, fixes the type of its payload.

    Attributes:
        job_id: Sortable by time, see ``ids.py``.
        trace_id: Shared by a job and all jobs that it submits; the job's own id by default.
        source: The interface that it was submitted through: ``cli``, ``rest``, ``telegram``, ``station``, ...
        actor: Who submitted it: a login name, a chat id, the name of a token.
        trust: How far the interface trusts the actor: ``operator`` (a login on this machine, 3ox.toml),
            ``member`` (a token, a signature, an allowed chat) or ``untrusted`` (content of a file or
            message).
        priority: 1 (first) to 10 (last); the project's when absent, else ``DEFAULT_PRIORITY``.
        timeout_seconds: Time limit of one attempt; the job type's default when absent.
        max_retries: Attempts after the first; the job type's default when absent.
        depends_on: Ids of jobs that must be completed first.
        on_dependency_failure: What happens to this job when one of those is not completed: ``skip`` (it is
            cancelled), ``fail`` (it fails) or ``run`` (it runs nevertheless).
        resources: Named resources that this job occupies while it runs, with the amount of each.
        idempotency_key: A second submission with the same key is answered with the first job. Several keys
            are separated by ``KEY_SEPARATOR``; one of them suffices.
        metadata: Text pairs that are stored with the job.
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
        """Name of the job type: ``ask``, ``shell.cmd``, ...; the struct of a type has it as a constant."""
        return str(type(self).__struct_config__.tag)

    @property
    def rank(self) -> int:
        """The priority; ``DEFAULT_PRIORITY`` if none is set."""
        return DEFAULT_PRIORITY if self.priority is None else self.priority

    @property
    def trace(self) -> str:
        """The trace id; the job's own id if none is set."""
        return self.job_id if self.trace_id is None else self.trace_id


class ActorJob(Job, frozen=True, kw_only=True, tag=False):
    """A call of an actor that is not built in: any Dramatiq actor, of this version or of another one.

    Attributes:
        job_type: Name of the actor.
        payload: The arguments by name; see ``signature.py``.
        queue: Queue that it goes to; that of the job type when absent.
        positional: Number of parameters, from the first, whose arguments are passed by position.
        message_id: Id of the Dramatiq message, if it is not the job's; see ``ids.job_id_of_message``.
        options: Options of the Dramatiq message that are not fields of the job.
    """

    job_type: TypeName  # a field here, since no struct stands for the type
    payload: dict[str, Any] = {}
    queue: QueueName | None = None
    positional: Annotated[int, Meta(ge=0)] = 0
    message_id: Short | None = None
    options: dict[str, Any] = {}


class UnreadableJob(Job, frozen=True, kw_only=True, tag="unreadable"):
    """A job in the store that this version cannot read: written by a newer version, or by hand.

    Attributes:
        written_type: The job type that its text names; ``unknown`` if it names none.
    """

    payload: Any = {}
    written_type: str = "unknown"

    @classmethod
    def of(cls, job_id: str, data: bytes) -> Self:
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
