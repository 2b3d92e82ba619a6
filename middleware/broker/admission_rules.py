"""The rules of admission: what the settings of one moment say of a job."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from middleware.broker.transitions import EnqueueRequest
from middleware.broker.type_directory import TypeDirectory
from middleware.destinations import Destinations
from middleware.job.base import DEFAULT_PRIORITY, POLICY_MARK
from middleware.job.keys import QUEUE
from middleware.job.policy import ALLOW, Policy
from middleware.job.receipt import canonical_payload
from middleware.job.schema import JOB_TYPES, ActorJob, Job, encode_job
from ops.errors import InvalidJob, UnknownProject
from ops.settings.load import ProjectSettings, Settings, TypeSettings

#: The store's JSON parser stops at 1000 (``cjson.decode_max_depth``), in the middle of a transition.
PAYLOAD_DEPTH_MAX = 200
#: Each message of a pipeline is two levels inside of the one before: 300 messages.
OPTIONS_DEPTH_MAX = 600
#: Up to this size it is faster to encode a payload again than to copy its JSON into the job: 0.16 us, not
#: 0.28 us, for 100 bytes. For 1 MB, copying takes 0.04 ms instead of 0.29 ms.
_SPLICE_BYTES = 1_000


#: The longest argument or ``NAME=VALUE`` of a program, in bytes (Linux: MAX_ARG_STRLEN less its final zero).
ARGUMENT_MAX_BYTES = 32 * 4096 - 1
#: The longest arguments of a program together, in bytes: ARG_MAX of a stack of 8 MB, a quarter of it, without
#: 128 kB for the inherited environment.
ARGUMENTS_MAX_BYTES = 2 * 1024 * 1024 - 128 * 1024
#: Each also costs a pointer and the zero at its end.
_POINTER_BYTES = 9
#: Smaller payloads fit: a task may be in one argument more than once.
_ARGUMENTS_CHECK_BYTES = 16_384


class Prepared(Struct, frozen=True, gc=False):
    """A job that has passed all checks.

    Attributes:
        job: With its defaults filled in.
        payload: As canonical JSON.
        limits: What it occupies while it runs, as ``enqueue`` takes it.
        approval: Why it is held for approval; empty if it is not.
    """

    job: Job
    payload: bytes
    limits: str
    approval: str


def fits_argument(text: str) -> bool:
    """Return whether the kernel takes a text as one argument or environment variable of a program."""
    return len(text.encode("utf-8", "replace")) <= ARGUMENT_MAX_BYTES


def find_project(settings: Settings, name: str) -> ProjectSettings:
    """Return the settings of a project.

    Raises:
        UnknownProject: The remedy names the nearest project.
    """
    project = settings.projects.get(name)
    if project is not None:
        return project
    import difflib

    near = difflib.get_close_matches(name, settings.projects, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UnknownProject(
        f"Unknown project {name!r}.",
        remedy=f"{hint}Define it in 3ox.toml under [projects.{name}] with path and command.",
    )


class _TypeRules(Struct, frozen=True, gc=False):
    """What the settings say of a job type.

    Attributes:
        limits: Its limits.
        priority: Priority of its jobs unless they or their project have one.
        needs_project: Its jobs name a project, whose limits they have.
        defaults: Values of the fields that a job without a project leaves open.
    """

    limits: TypeSettings
    priority: int
    needs_project: bool
    defaults: dict[str, Any]

    @classmethod
    def of(cls, limits: TypeSettings, priority: int | None, *, needs_project: bool = False) -> _TypeRules:
        """Return the rules of a type."""
        rank = DEFAULT_PRIORITY if priority is None else priority
        defaults = {
            "priority": rank,
            "timeout_seconds": limits.timeout_s,
            "max_retries": limits.max_retries,
        }
        return cls(limits, rank, needs_project, defaults)


class AdmissionRules:
    """The settings of one moment, and what follows from them.

    Args:
        settings: Limits, projects, resources, policy.
        types: The job types.
    """

    def __init__(self, settings: Settings, types: TypeDirectory) -> None:
        self.settings = settings
        self.policy = Policy(settings.policy, runs_programs=types.runs_programs)
        self._directory = types
        self._destinations = Destinations(settings)
        self._types: dict[str, _TypeRules] = {}

    def project(self, name: str) -> ProjectSettings:
        """Return the settings of a project; see ``find_project``."""
        return find_project(self.settings, name)

    def prepare(self, job: Job) -> Prepared:
        """Check, authorize and complete a job; see ``Admission.prepare``."""
        if not isinstance(job, Job):
            raise InvalidJob(
                f"{type(job).__name__!r} is not a job.", remedy="Build it with make_job(type, payload, ...)."
            )
        if type(job) is ActorJob:  # isinstance of a struct takes three times as long
            job = self._checked_call(job)
        decision = self.policy.require(job)
        payload = self._encode_payload(job)
        if len(payload) > _ARGUMENTS_CHECK_BYTES:
            self._require_arguments_fit(job)
        limits = self._limits(job) if job.resources or job.project is not None else ""
        changes = self._defaults(job)
        if decision.rule:
            changes["metadata"] = {**job.metadata, POLICY_MARK: decision.name}
        elif POLICY_MARK in job.metadata:
            # Only the policy writes it.
            changes["metadata"] = {key: text for key, text in job.metadata.items() if key != POLICY_MARK}
        approval = "" if decision.effect == ALLOW else f"waiting for approval (rule {decision.rule})"
        complete = msgspec.structs.replace(job, **changes) if changes else job
        return Prepared(complete, payload, limits, approval)

    def _checked_call(self, job: ActorJob) -> ActorJob:
        """Return a call of a user's actor with its queue, if it fits the parameters.

        Raises:
            InvalidJob: The type is unknown, or an argument does not fit.
        """
        job_type = self._directory.require(job.job_type)
        try:
            job_type.validate(job.payload)
        except RecursionError as error:
            raise _too_deep() from error
        if job.options:
            self._check_options(job.options)
        return job if job.queue is not None else msgspec.structs.replace(job, queue=job_type.queue)

    def _check_options(self, options: dict[str, Any]) -> None:
        """Check the options of a message, which hold the rest of its pipeline and its callbacks.

        Raises:
            InvalidJob: They are too large, nested too deep, or not JSON.
        """
        limit_bytes = self.settings.payload_max_bytes
        try:
            size_bytes = len(msgspec.json.encode(options))
        except RecursionError as error:
            raise _options_too_deep() from error
        except TypeError as error:
            raise InvalidJob(
                f"The options of the message are not JSON: {error}.",
                remedy="Pass plain data.",
                field="options",
            ) from error
        if size_bytes > limit_bytes:
            raise InvalidJob(
                f"The options of the message have {size_bytes} bytes; the limit is {limit_bytes}.",
                remedy="Divide the pipeline or the callbacks, or raise payload_max_bytes.",
                field="options",
            )
        if _is_too_deep(options, OPTIONS_DEPTH_MAX):
            raise _options_too_deep()

    def complete(self, job: Job) -> Job:
        """Fill in what the job leaves to the settings; see ``Admission.complete``."""
        self._require_arguments_fit(job)
        defaults = self._defaults(job)
        return msgspec.structs.replace(job, **defaults) if defaults else job

    def _defaults(self, job: Job) -> dict[str, Any]:
        """Return values for the fields that the job leaves open: its project's, else its type's."""
        kind = self._type(job)
        defaults = kind.defaults.copy()
        if job.project is not None:
            project = self.settings.projects.get(job.project)
            if kind.needs_project:
                task = self.project(job.project)
                if task.timeout_s is not None:
                    defaults["timeout_seconds"] = task.timeout_s
                if task.max_retries is not None:
                    defaults["max_retries"] = task.max_retries
            if project is not None and project.priority is not None:
                defaults["priority"] = project.priority
        if job.priority is not None:
            del defaults["priority"]
        if job.timeout_seconds is not None:
            del defaults["timeout_seconds"]
        if job.max_retries is not None:
            del defaults["max_retries"]
        return defaults

    def _type(self, job: Job) -> _TypeRules:
        job_type = job.job_type
        known = self._types.get(job_type)
        if known is not None:
            return known
        declared = JOB_TYPES.get(job_type)
        if declared is None:
            other = self._directory.find(job_type)
            # Not kept: it may change with the worker that publishes it.
            return _TypeRules.of(
                self._directory.limits(job_type, self.settings), None if other is None else other.priority
            )
        known = self._types[job_type] = _TypeRules.of(
            JOB_TYPES.limits(job_type, self.settings),
            declared.priority,
            needs_project=declared.needs_project,
        )
        return known

    def _encode_payload(self, job: Job) -> bytes:
        try:
            payload = canonical_payload(job)
        except RecursionError as error:
            raise _too_deep() from error
        if payload.count(b"[") + payload.count(b"{") > PAYLOAD_DEPTH_MAX and _is_too_deep(job.payload):
            raise _too_deep()
        if len(payload) > self.settings.payload_max_bytes:
            raise InvalidJob(
                f"The payload has {len(payload)} bytes; the limit is {self.settings.payload_max_bytes}.",
                remedy="Put the data into a file and pass its path, or raise payload_max_bytes.",
                field="payload",
            )
        return payload

    def _require_arguments_fit(self, job: Job) -> None:
        """Check that the kernel can start the command of a job.

        Raises:
            InvalidJob: An argument or variable is too long, or all of them together are.
        """
        if job.job_type == "shell.cmd":
            texts = [*job.payload.argv, *(f"{name}={value}" for name, value in job.payload.env.items())]
            remedy = "Pass it on standard input or in a file."
        elif job.job_type == "task.custom" and job.project is not None:
            command = self.project(job.project).command
            texts = [argument.replace("{task}", job.payload.task) for argument in command]
            remedy = (
                f"In [projects.{job.project}] write {{task_file}} instead of {{task}}, or leave it out and"
                ' set stdin = "task".'
            )
        else:
            return
        sizes = [len(text.encode("utf-8", "replace")) for text in texts]
        total_bytes = sum(sizes) + _POINTER_BYTES * len(sizes)
        if max(sizes) > ARGUMENT_MAX_BYTES:
            problem = f"An argument of the command has {max(sizes)} bytes; the limit is {ARGUMENT_MAX_BYTES}."
        elif total_bytes > ARGUMENTS_MAX_BYTES:
            problem = f"The command has {total_bytes} bytes; the limit is {ARGUMENTS_MAX_BYTES}."
        else:
            return
        raise InvalidJob(problem, remedy=remedy, field="payload")

    def _limits(self, job: Job) -> str:
        """Return what the job occupies while it runs, as ``enqueue`` takes it: ``NAME=AMOUNT/CAPACITY,...``.

        Raises:
            UnknownProject: A ``task.custom`` for a project that is not configured.
            InvalidJob: A resource is unknown, or has less capacity than the job asks for.
        """
        limits = []
        if job.project is not None and self._type(job).needs_project:
            concurrency = self.project(job.project).concurrency
            if concurrency is not None:
                limits.append(f"project:{job.project}=1/{concurrency}")
        for name, amount in job.resources.items():
            capacity = self.settings.resources.get(name)
            if capacity is None:
                raise InvalidJob(
                    f"Unknown resource {name!r}.",
                    remedy=f"Add it to 3ox.toml: [resources] {name} = {amount}.",
                    field="resources",
                )
            if amount > capacity:
                raise InvalidJob(
                    f"The job asks for {amount} of resource {name!r}; its capacity is {capacity}.",
                    remedy="Ask for less, or raise it under [resources] in 3ox.toml.",
                    field="resources",
                )
            limits.append(f"{name}={amount}/{capacity}")
        return ",".join(limits)

    def request(self, prepared: Prepared, *, delay_ms: int) -> EnqueueRequest:
        """Build the request that enqueues a job; see ``Admission.request``."""
        job, payload = prepared.job, prepared.payload
        spec = job
        if len(payload) > _SPLICE_BYTES and payload.count(b"{") == 1:
            # Not where a mapping may be inside: its keys keep their order, for instance those of a query.
            spec = msgspec.structs.replace(job, payload=msgspec.Raw(payload))
        return EnqueueRequest(
            job_id=job.job_id,
            priority=job.rank,
            spec=encode_job(spec),
            job_type=job.job_type,
            queue=_queue_of(job, self.settings),
            input_sha256=hashlib.sha256(payload).hexdigest(),
            project="" if job.project is None else job.project,
            delay_ms=max(0, delay_ms),
            idempotency_key="" if job.idempotency_key is None else job.idempotency_key,
            limits=prepared.limits,
            depends_on=job.depends_on,
            approval=prepared.approval,
            sinks=self._destinations.of(job),
        )


def _queue_of(job: Job, settings: Settings) -> str:
    """Return the queue of a job: that of its type, unless it is a user's and the job names one."""
    if type(job) is ActorJob:
        return QUEUE if job.queue is None else job.queue
    declared = JOB_TYPES.get(job.job_type)
    return QUEUE if declared is None else declared.queue_of(job.payload, settings)


def _is_too_deep(payload: Any, depth_max: int = PAYLOAD_DEPTH_MAX) -> bool:
    """Return whether a payload or a mapping is nested deeper than ``depth_max`` levels."""
    level = list((payload if isinstance(payload, dict) else msgspec.structs.asdict(payload)).values())
    for _ in range(depth_max):
        containers = [value for value in level if isinstance(value, dict | list | tuple)]
        level = [
            inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def _too_deep() -> InvalidJob:
    return InvalidJob(
        f"The payload is nested more than {PAYLOAD_DEPTH_MAX} levels deep.",
        remedy="Put the data into a file and pass its path, or pass it as text.",
        field="payload",
    )


def _options_too_deep() -> InvalidJob:
    return InvalidJob(
        f"The options of the message are nested more than {OPTIONS_DEPTH_MAX} levels deep.",
        remedy=f"A pipeline has at most {OPTIONS_DEPTH_MAX // 2} messages; let its last one start the next.",
        field="options",
    )
