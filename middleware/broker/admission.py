"""Admission: what a job passes on its way into the queue.

``dispatch`` and ``actor.send`` both end here, so every interface has the same rules and the same receipt.
A job is authorized by the policy, checked against the settings, completed with their defaults and enqueued.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from middleware.broker.admission_rules import AdmissionRules, Prepared
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import Bounds, Enqueued, EnqueueRequest
from middleware.broker.type_directory import TypeDirectory
from middleware.job.assembly import stored_receipt
from middleware.job.keys import Keys
from middleware.job.policy import ALLOW
from middleware.job.receipt import first_receipt
from middleware.job.records import Receipt
from middleware.job.schema import Job
from middleware.job.trust import Trust, capped, running_trust
from ops.errors import BridgeError, InvalidJob, PolicyDenied, QueueFull
from ops.settings.load import ProjectSettings, Settings
from ops.store.client import Store
from ops.store.resp import as_dict


def queue_full(waiting: int) -> QueueFull:
    """Return the error for a queue at its limit.

    Args:
        waiting: Number of jobs that wait in it.
    """
    return QueueFull(
        f"The queue is full: {waiting} jobs wait.",
        remedy="Try again later, start more workers, or raise queue_max.",
    )


class Admission:
    """Admits jobs to the queue, each by the settings of one moment, even if 3ox.toml changes meanwhile.

    Args:
        scripts: The store functions.
        settings: Limits, projects, resources, policy; see ``follow_settings``.
        lookup: Returns the receipt of an earlier job, by its id.
        types: The job types; the built-in ones by default.
        parent_trust: Returns the trust of the job that submits; no job gets more trust than its parent.

    Attributes:
        types: The job types that this process knows.
        latest: Returns the current settings.
    """

    def __init__(
        self,
        scripts: Scripts,
        settings: Settings,
        lookup: Callable[[str], Receipt],
        *,
        types: TypeDirectory | None = None,
        parent_trust: Callable[[], Trust | None] = running_trust,
    ) -> None:
        self._scripts = scripts
        self._lookup = lookup
        self._parent_trust = parent_trust
        self.latest: Callable[[], Settings] = lambda: settings
        self.types = TypeDirectory() if types is None else types
        self._rules = AdmissionRules(settings, self.types)

    def follow_settings(self, latest: Callable[[], Settings]) -> None:
        """Use what this function returns from now on.

        Args:
            latest: Returns the current settings, the same object until they change. Called for each job, so
                it has to be fast.
        """
        self.latest = latest

    def _current(self) -> AdmissionRules:
        """Return the current rules; a caller uses one result for all that it does with a job."""
        rules, latest = self._rules, self.latest()
        if latest is not rules.settings:
            rules = self._rules = AdmissionRules(latest, self.types)
        return rules

    def project(self, name: str) -> ProjectSettings:
        """Return a project's settings.

        Raises:
            UnknownProject: Names the nearest one.
        """
        return self._current().project(name)

    def prepare(self, job: Job) -> Prepared:
        """Check, authorize and complete a job without enqueueing it.

        Raises:
            PolicyDenied: The policy does not allow it.
            UnknownProject: A ``task.custom`` for a project that is not configured.
            InvalidJob: The payload is too large or nested too deep, or a resource is unknown.
        """
        return self._current().prepare(job)

    def authorize_in_process(self, job: Job) -> None:
        """Check that the policy lets a job run in this process, where no approval can be waited for.

        Raises:
            PolicyDenied: The policy does not allow it, or requires an approval.
        """
        self._require_in_process(self._current(), job)

    def prepare_in_process(self, job: Job) -> Job:
        """Authorize and complete a job that is to run in this process; see ``authorize_in_process``.

        Raises:
            PolicyDenied: The policy does not allow it, or requires an approval.
            UnknownProject: A ``task.custom`` for a project that is not configured.
        """
        rules = self._current()
        self._require_in_process(rules, job)
        return rules.complete(job)

    @staticmethod
    def _require_in_process(rules: AdmissionRules, job: Job) -> None:
        decision = rules.policy.require(job)
        if decision.effect != ALLOW:
            raise PolicyDenied(
                f"The policy requires an approval of {job.job_type} from {job.source} ({decision.name}).",
                remedy="Without a store it cannot wait for that; start one with '3ox up'.",
            )

    def request(self, prepared: Prepared, *, delay_ms: int = 0) -> EnqueueRequest:
        """Build the request that enqueues a job.

        Args:
            prepared: From ``prepare``.
            delay_ms: Time until it may start.
        """
        return self._current().request(prepared, delay_ms=delay_ms)

    def submit(self, jobs: Iterable[Job], *, delay_ms: int = 0) -> list[Receipt]:
        """Enqueue jobs.

        Args:
            jobs: A sequence is checked as a whole before the first job is enqueued, all by the settings of
                one moment. An iterator is consumed while the store processes the jobs before, which is
                faster for many; each of its jobs goes by the settings of its own moment.
            delay_ms: Time until they may start.

        Returns:
            Their receipts, in order.

        Raises:
            PolicyDenied: The policy does not allow one of them; as for ``InvalidJob``.
            InvalidJob: One of them is not valid: of a sequence none was enqueued, of an iterator some of
                those before it. Or one depends on a job that cannot complete: the others were enqueued.
            UnknownProject: One names a project that is not configured; as for ``InvalidJob``.
            QueueFull: The queue reached its limit; those for which there was room were enqueued.
            StoreUnreachable: Submitting the same jobs again has no effect on those already enqueued.
        """
        trust = self._parent_trust()
        if trust is not None and trust != "operator":
            jobs = _with_trust(jobs, trust)
        checked: Iterable[tuple[AdmissionRules, Prepared]]
        if isinstance(jobs, Sequence):
            rules = self._current()
            checked = zip(itertools.repeat(rules), [rules.prepare(job) for job in jobs], strict=False)
        else:
            checked = self._prepare_each(jobs)
        sent: list[tuple[Job, EnqueueRequest]] = []

        def requests() -> Iterator[EnqueueRequest]:
            for rules, prepared in checked:
                request = rules.request(prepared, delay_ms=delay_ms)
                sent.append((prepared.job, request))
                yield request

        receipts: list[Receipt] = []
        refusal: BridgeError | None = None
        for at, reply in enumerate(self._scripts.enqueue(requests())):
            try:
                receipts.append(self._receipt(*sent[at], reply))
            except (QueueFull, InvalidJob) as error:
                refusal = error if refusal is None else refusal
        if refusal is not None:
            raise refusal
        return receipts

    def _prepare_each(self, jobs: Iterable[Job]) -> Iterator[tuple[AdmissionRules, Prepared]]:
        for job in jobs:
            rules = self._current()
            yield rules, rules.prepare(job)

    def _receipt(self, job: Job, request: EnqueueRequest, reply: Enqueued) -> Receipt:
        """Return the receipt for a reply of ``enqueue``; raise an error if the job was refused."""
        if reply.outcome == "full":
            raise queue_full(reply.waiting)
        if reply.outcome == "queues":
            raise InvalidJob(
                f"there are {reply.waiting} queues already, which is the limit.",
                remedy="Use one of the queues that exist; '3ox status --json' lists them.",
                field="queue",
            )
        if reply.outcome == "dependency" and reply.status == "itself":
            raise InvalidJob("The job depends on itself.", remedy="Name other jobs.", field="depends_on")
        if reply.outcome == "dependency":
            unknown = reply.status == "unknown"
            state = "unknown" if unknown else f"already {reply.status}"
            raise InvalidJob(
                f"The job depends on {reply.job_id}, which is {state}.",
                remedy="Name jobs that exist."
                if unknown
                else "Retry that job first, or set on_dependency_failure = run to run this one regardless.",
                field="depends_on",
            )
        if reply.outcome == "duplicate" and reply.job_id != job.job_id:
            return self._lookup(reply.job_id)
        return first_receipt(job, status=reply.status, at_ms=reply.at_ms, input_sha256=request.input_sha256)


def _with_trust(jobs: Iterable[Job], parent: Trust) -> Iterable[Job]:
    """Limit the trust of jobs to their parent's; a sequence stays a sequence."""
    limited = (
        job
        if (trust := capped(job.trust, parent)) == job.trust
        else msgspec.structs.replace(job, trust=trust)
        for job in jobs
    )
    return list(limited) if isinstance(jobs, Sequence) else limited


def make_scripts(store: Store, settings: Settings) -> Scripts:
    """Return the store functions with the limits that the settings set."""
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


def make_admission(scripts: Scripts, settings: Settings) -> Admission:
    """Return the admission of a bridge."""
    store, keys = scripts.store, Keys(settings.key_prefix)
    return Admission(
        scripts,
        settings,
        lambda job_id: stored_receipt(store, keys, job_id, duplicate=True),
        types=TypeDirectory(lambda: as_dict(store.call("HGETALL", keys.types))),
    )
