"""The one way into the queue: checks a job against the settings, fills in its limits, enqueues it.

``dispatch`` and ``actor.send`` both end here, so that every door has the same rules and the same receipt.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from middleware.broker.approvals import Approvals
from middleware.broker.scripts import Bounds, Enqueued, EnqueueRequest, Scripts
from middleware.destinations import Destinations
from middleware.job.policy import ALLOW, Decision, Policy
from middleware.job.reader import Reader
from middleware.job.records import Receipt, new_receipt
from middleware.job.schema import DEFAULT_PRIORITY, POLICY_MARK, Job, JobBase, encode_job
from ops.errors import BridgeError, InvalidJob, PolicyDenied, QueueFull, UnknownProject
from ops.settings.load import ProjectSettings, Settings, TypeSettings
from ops.store.client import Store

#: The store's JSON reader gives up at 1000 (``cjson.decode_max_depth``), in the middle of a transition.
PAYLOAD_DEPTH_MAX = 200

_canonical = msgspec.json.Encoder(order="sorted")


def payload_sha256(job: Job) -> str:
    """Give the SHA-256 of a job's payload as canonical JSON."""
    return hashlib.sha256(_canonical.encode(job.payload)).hexdigest()


class _Rules:
    """The settings of one moment, and what follows from them.

    Args:
        settings: Limits, projects, resources, policy.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = Policy(settings.policy)
        self.destinations = Destinations(settings)
        self._types: dict[str, TypeSettings] = {}

    def type_settings(self, job_type: str) -> TypeSettings:
        """Return what holds for jobs of a type."""
        known = self._types.get(job_type)
        if known is None:
            known = self._types[job_type] = self.settings.type_settings(job_type)
        return known

    def project(self, name: str) -> ProjectSettings:
        """Return the settings of a project.

        Raises:
            UnknownProject: Names the nearest one.
        """
        project = self.settings.projects.get(name)
        if project is not None:
            return project
        import difflib

        near = difflib.get_close_matches(name, self.settings.projects, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnknownProject(
            f"there is no project {name!r}.",
            remedy=f"{hint}Projects stand in 3ox.toml as [projects.{name}] with path and command.",
        )

    def complete(self, job: Job) -> Job:
        """Fill in what the job leaves to the settings; see ``Intake.complete``."""
        project = None if job.project is None else self.settings.projects.get(job.project)
        if job.job_type == "task.custom" and job.project is not None:
            project = self.project(job.project)
        if None not in {job.priority, job.timeout_seconds, job.max_retries}:
            return job
        kind = self.type_settings(job.job_type)
        priority, timeout_s, max_retries = DEFAULT_PRIORITY, kind.timeout_s, kind.max_retries
        if project is not None:
            priority = priority if project.priority is None else project.priority
        if project is not None and job.job_type == "task.custom":
            timeout_s = timeout_s if project.timeout_s is None else project.timeout_s
            max_retries = max_retries if project.max_retries is None else project.max_retries
        return msgspec.structs.replace(
            job,
            priority=priority if job.priority is None else job.priority,
            timeout_seconds=timeout_s if job.timeout_seconds is None else job.timeout_seconds,
            max_retries=max_retries if job.max_retries is None else job.max_retries,
        )

    def limits(self, job: Job) -> str:
        """Return what the job occupies while it runs, as ``enqueue`` takes it.

        Raises:
            UnknownProject: A ``task.custom`` for a project that is not configured.
            InvalidJob: A resource is not there, or not in this amount.
        """
        limits = []
        if job.job_type == "task.custom" and job.project is not None:
            concurrency = self.project(job.project).concurrency
            if concurrency is not None:
                limits.append(f"project:{job.project}=1/{concurrency}")
        for name, amount in job.resources.items():
            capacity = self.settings.resources.get(name)
            if capacity is None:
                raise InvalidJob(
                    f"there is no resource {name!r}.",
                    remedy=f"Add it to 3ox.toml: [resources] {name} = {amount}.",
                    field="resources",
                )
            if amount > capacity:
                raise InvalidJob(
                    f"the job wants {amount} of resource {name!r}, there is only {capacity}.",
                    remedy="Ask for less, or raise it under [resources] in 3ox.toml.",
                    field="resources",
                )
            limits.append(f"{name}={amount}/{capacity}")
        return ",".join(limits)

    def check(self, job: Job) -> None:
        """Refuse a job that could not be enqueued; see ``Intake.check``."""
        if not isinstance(job, JobBase):
            raise InvalidJob(
                f"{type(job).__name__!r} is no job.", remedy="Build it with make_job(type, payload, ...)."
            )
        self.policy.require(job)
        try:
            payload = _canonical.encode(job.payload)
        except RecursionError as error:
            raise _nested() from error
        if payload.count(b"[") + payload.count(b"{") > PAYLOAD_DEPTH_MAX and _is_nested(job.payload):
            raise _nested()
        size_bytes = len(payload)
        if size_bytes > self.settings.payload_max_bytes:
            raise InvalidJob(
                f"the payload has {size_bytes} bytes, at most {self.settings.payload_max_bytes} are taken.",
                remedy="Put the data into a file and pass its path, or raise payload_max_bytes.",
                field="payload",
            )
        if job.resources or job.project is not None:
            self.limits(job)

    def admit(self, job: Job) -> tuple[Job, str]:
        """Write down which rule lets a job in, and why it is held for approval, if it is."""
        decision = self.policy.require(job)
        if decision.rule == 0:
            if POLICY_MARK in job.metadata:
                return _marked(job, None), ""
            return job, ""
        held = "" if decision.effect == ALLOW else f"it waits for approval ({decision.name})"
        return _marked(job, decision), held

    def request(self, job: Job, *, delay_ms: int, approval: str) -> EnqueueRequest:
        """Make the request that enqueues a job; see ``Intake.request``."""
        return EnqueueRequest(
            job_id=job.job_id,
            priority=job.rank,
            spec=encode_job(job),
            job_type=job.job_type,
            input_sha256=payload_sha256(job),
            project="" if job.project is None else job.project,
            delay_ms=max(0, delay_ms),
            idempotency_key="" if job.idempotency_key is None else job.idempotency_key,
            limits=self.limits(job) if job.resources or job.project is not None else "",
            depends_on=job.depends_on,
            approval=approval,
            sinks=self.destinations.of(job),
        )


class Intake:
    """Takes jobs in; each by the settings of one moment, even if 3ox.toml changes meanwhile.

    Args:
        scripts: Where they go.
        settings: Limits, projects, resources, policy; see ``follow``.
        lookup: Gives the receipt of a job that had been taken before.

    Attributes:
        approvals: Jobs that wait until somebody approves them.
        latest: Gives the settings that hold now.
    """

    def __init__(self, scripts: Scripts, settings: Settings, lookup: Callable[[str], Receipt]) -> None:
        self._scripts = scripts
        self._lookup = lookup
        self.latest: Callable[[], Settings] = lambda: settings
        self._rules = _Rules(settings)
        self.approvals = Approvals(scripts, ttl_s=settings.approval_ttl_s)

    def follow(self, latest: Callable[[], Settings]) -> None:
        """Go by what this returns from now on; called for each job, so that it has to be quick.

        Args:
            latest: Returns the settings that hold now; the same object until they have changed.
        """
        self.latest = latest

    def _now(self) -> _Rules:
        """Return the rules of now, to be used for all of one job."""
        rules, latest = self._rules, self.latest()
        if latest is not rules.settings:
            rules = self._rules = _Rules(latest)
        return rules

    def project(self, name: str) -> ProjectSettings:
        """Return a project's settings.

        Raises:
            UnknownProject: Names the nearest one.
        """
        return self._now().project(name)

    def complete(self, job: Job) -> Job:
        """Fill in what the job leaves to the settings: its priority, its time limit and its retries.

        Raises:
            UnknownProject: A ``task.custom`` for a project that is not configured.
        """
        return self._now().complete(job)

    def check(self, job: Job) -> None:
        """Refuse a job that could not be enqueued.

        Raises:
            PolicyDenied: The policy does not allow it.
            UnknownProject: A ``task.custom`` for a project that is not configured.
            InvalidJob: The payload is too large, or a resource is not there.
        """
        self._now().check(job)

    def check_here(self, job: Job) -> None:
        """Refuse a job that may not run in this process, where nobody could approve it.

        Raises:
            PolicyDenied: The policy does not allow it, or wants it approved.
        """
        decision = self._now().policy.require(job)
        if decision.effect != ALLOW:
            raise PolicyDenied(
                f"the policy wants {job.job_type} from {job.source} approved ({decision.name}).",
                remedy="Without a store it cannot wait for that; start one with '3ox up'.",
            )

    def request(self, job: Job, *, delay_ms: int = 0, approval: str = "") -> EnqueueRequest:
        """Make the request that enqueues a job.

        Args:
            job: Checked and complete, see ``check`` and ``complete``.
            delay_ms: How long it waits before it may start.
            approval: Why somebody has to approve it first; empty if nobody has to.
        """
        return self._now().request(job, delay_ms=delay_ms, approval=approval)

    def submit(self, jobs: Iterable[Job], *, delay_ms: int = 0) -> list[Receipt]:
        """Enqueue jobs.

        Args:
            jobs: Of a sequence all are checked before the first one is taken. An iterator is read while the
                store is at work on the jobs before, which is the faster way for many.
            delay_ms: How long they wait before they may start.

        Raises:
            PolicyDenied: The policy does not allow one of them; as for ``InvalidJob``.
            InvalidJob: One of them does not fit; of a sequence none was taken, of an iterator some of those
                before it. Or one depends on a job that cannot complete; the others were taken.
            UnknownProject: One names a project that is not configured; the same holds.
            QueueFull: The queue reached its limit; those for which there was room were taken.
            StoreUnreachable: The same jobs again do no harm.
        """
        jobs = _as_trusted_as_their_parent(jobs)
        rules = self._now()
        checked = isinstance(jobs, Sequence)
        if checked:
            for job in jobs:
                rules.check(job)
        prepared: list[tuple[Job, EnqueueRequest]] = []

        def requests() -> Iterator[EnqueueRequest]:
            for job in jobs:
                current = rules if checked else self._now()
                if not checked:
                    current.check(job)
                complete, held = current.admit(current.complete(job))
                prepared.append((complete, current.request(complete, delay_ms=delay_ms, approval=held)))
                yield prepared[-1][1]

        receipts: list[Receipt] = []
        refusal: BridgeError | None = None
        for at, reply in enumerate(self._scripts.enqueue(requests())):
            try:
                receipts.append(self._receipt(*prepared[at], reply))
            except (QueueFull, InvalidJob) as error:
                refusal = error if refusal is None else refusal
        if refusal is not None:
            raise refusal
        return receipts

    def _receipt(self, job: Job, request: EnqueueRequest, reply: Enqueued) -> Receipt:
        if reply.outcome == "full":
            raise QueueFull(
                f"the queue is full: {reply.waiting} jobs wait.",
                remedy="Try again later, start more workers, or raise queue_max.",
            )
        if reply.outcome == "dependency" and reply.status == "itself":
            raise InvalidJob("the job depends on itself.", remedy="Name other jobs.", field="depends_on")
        if reply.outcome == "dependency":
            unknown = reply.status == "unknown"
            state = "unknown" if unknown else f"already {reply.status}"
            raise InvalidJob(
                f"the job depends on {reply.job_id}, which is {state}.",
                remedy="Name jobs that exist."
                if unknown
                else "Retry that one first, or have this one run all the same: on_dependency_failure = run.",
                field="depends_on",
            )
        if reply.outcome == "duplicate" and reply.job_id != job.job_id:
            return self._lookup(reply.job_id)
        return new_receipt(job, status=reply.status, at_ms=reply.at_ms, input_sha256=request.input_sha256)


def _is_nested(payload: Any) -> bool:
    """Tell whether a payload is nested deeper than it may be."""
    level = list(msgspec.structs.asdict(payload).values())
    for _ in range(PAYLOAD_DEPTH_MAX):
        containers = [value for value in level if isinstance(value, dict | list | tuple)]
        level = [
            inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True


def _nested() -> InvalidJob:
    return InvalidJob(
        f"the payload is nested more than {PAYLOAD_DEPTH_MAX} deep.",
        remedy="Put the data into a file and pass its path, or as text.",
        field="payload",
    )


def _marked(job: Job, decision: Decision | None) -> Job:
    """Write into a job which rule let it in; None takes out what somebody else wrote there."""
    metadata = {name: value for name, value in job.metadata.items() if name != POLICY_MARK}
    if decision is not None:
        metadata[POLICY_MARK] = decision.name
    return msgspec.structs.replace(job, metadata=metadata)


def _as_trusted_as_their_parent(jobs: Iterable[Job]) -> Iterable[Job]:
    """A job that dispatches others cannot give them more trust than it has."""
    running = sys.modules.get("middleware.context")  # with Dramatiq behind it; who runs jobs has it loaded
    try:
        trust = "operator" if running is None else running.current_job().job.trust
    except LookupError:
        return jobs
    if trust == "operator":
        return jobs
    capped = (
        job if job.trust in {trust, "untrusted"} else msgspec.structs.replace(job, trust=trust)
        for job in jobs
    )
    return list(capped) if isinstance(jobs, Sequence) else capped


def make_scripts(store: Store, settings: Settings) -> Scripts:
    """Give the scripts with the limits that the settings set."""
    return Scripts(
        store,
        settings.key_prefix,
        Bounds(
            events_max=settings.events_max,
            queue_max=settings.queue_max,
            idempotency_ttl_ms=settings.idempotency_ttl_s * 1000,
            retention_ms=settings.retention_s * 1000,
            finished_max=settings.finished_max,
            max_crashes=settings.max_crashes,
        ),
    )


def make_intake(scripts: Scripts, settings: Settings) -> Intake:
    """Give the intake."""
    reader = Reader(scripts.store, settings.key_prefix)
    return Intake(scripts, settings, lambda job_id: reader.receipt(job_id, duplicate=True))
