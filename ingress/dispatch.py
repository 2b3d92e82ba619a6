"""Takes commands in and answers about them; every door of the bridge goes through here.

    from ingress.dispatch import dispatch, wait_for
    receipt = dispatch("shell.cmd", {"argv": ["uname", "-a"]})
    print(wait_for(receipt.job_id).result)

A job is validated, gets its receipt and is in the queue when ``dispatch`` returns; if it raises, nothing
was taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ingress.core.lookup import lacking, one_job, one_receipt, whole_id
from middleware.broker.admission import make_intake, make_scripts
from middleware.broker.approvals import Decision
from middleware.job.follow import Follower
from middleware.job.reader import Reader
from middleware.job.records import JobEvent, JobPage, JobRecord, OutputChunk, Receipt
from middleware.job.schema import Job, make_job
from middleware.job.types import Payload
from ops.errors import BridgeError, JobNotFound, WrongState
from ops.settings.load import LoadedSettings, load_settings
from ops.spool import Spool
from ops.store.client import Store

#: How many jobs one call deletes: a few milliseconds in which the store serves nobody else.
PURGE_BATCH = 100


class CancelReply(msgspec.Struct, frozen=True):
    """What ``cancel`` found.

    Attributes:
        outcome: ``cancelled`` (it never started), ``cancelling`` (its worker stops it now) or ``finished``
            (it had ended before).
        status: What it is now.
        was: What it was before.
    """

    job_id: str
    outcome: str
    status: str
    was: str = ""


class Bridge:
    """A connection to one bridge.

    Args:
        loaded: Its settings.
        timeout_s: Bound on one answer of the store; the setting's value by default.
        store: Where it is; made from the settings by default.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """

    def __init__(
        self, loaded: LoadedSettings, *, timeout_s: float | None = None, store: Store | None = None
    ) -> None:
        self.loaded = loaded
        self.store = Store.open(loaded, timeout_s=timeout_s) if store is None else store
        self.scripts = make_scripts(self.store, loaded.settings)
        self.intake = make_intake(self.scripts, loaded.settings)
        self.reader = Reader(self.store, loaded.settings.key_prefix)
        self.follower = Follower(self.store, self.reader)

    def spooled(self) -> int:
        """Count the jobs that daemons of this host keep on disk until the store takes them."""
        return Spool(self.loaded.workspace.spool_dir, max_bytes=self.loaded.settings.spool_max_bytes).count()

    def submit(self, job: Job, *, delay_s: float | None = None) -> Receipt:
        """Enqueue a job; see the function of this name."""
        return self.intake.submit([job], delay_ms=0 if delay_s is None else round(delay_s * 1000))[0]

    def cancel(self, part: str, reason: str) -> CancelReply:
        """Cancel a job; see the function of this name."""
        job_id = self._resolve(part)
        outcome, status = self.scripts.cancel(job_id, reason)
        if outcome == "unknown":
            raise self._lacks(part)
        return CancelReply(job_id, outcome, outcome if outcome == "cancelled" else status, was=status)

    def retry(self, part: str, reason: str) -> Receipt:
        """Run an ended job again; see the function of this name."""
        job_id = self._resolve(part)
        outcome, status = self.scripts.requeue(job_id, reason)
        if outcome == "refused":
            raise WrongState(
                f"{job_id} is {status}; only failed and cancelled jobs are retried.",
                remedy="Dispatch it anew, or cancel it first.",
            )
        if outcome == "unknown":
            raise self._lacks(part)
        return self.reader.receipt(job_id)

    def approve(self, part: str, actor: str, reason: str = "") -> Receipt:
        """Let a job go on that waits for approval; see the function of this name."""
        job_id = self._resolve(part)
        return self._decided(job_id, "approved", self.intake.approvals.approve(job_id, actor, reason))

    def deny(self, part: str, actor: str, reason: str = "") -> Receipt:
        """Cancel a job that waits for approval; see the function of this name."""
        job_id = self._resolve(part)
        return self._decided(job_id, "denied", self.intake.approvals.deny(job_id, actor, reason))

    def _decided(self, job_id: str, wanted: str, decision: Decision) -> Receipt:
        if decision.outcome == "unknown":
            raise self._lacks(job_id)
        if decision.outcome == "expired":
            why = self.reader.job(job_id).reason
            raise WrongState(f"{job_id} cannot be {wanted} any more: {why}.", remedy="Dispatch it anew.")
        if decision.outcome == "refused":
            before = f", it was {decision.approval}" if decision.approval else ""
            raise WrongState(
                f"{job_id} is {decision.status} and does not wait for approval{before}.",
                remedy="'3ox jobs --status held' shows what waits, and for what.",
            )
        return self.reader.receipt(job_id)

    def _resolve(self, part: str) -> str:
        try:
            return self.reader.resolve(part)
        except JobNotFound as error:
            raise self._lacks(part) from error

    def _lacks(self, part: str) -> BridgeError:
        return lacking(self, part)

    def approvals(self, limit: int = 50) -> list[JobRecord]:
        """Give the jobs that wait for approval; see ``list_approvals``."""
        found = []
        for job_id in self.intake.approvals.waiting(limit):
            with contextlib.suppress(JobNotFound):  # decided and deleted in between
                found.append(self.reader.job(job_id))
        return found


class _Default:
    """The bridge that the functions of this module use."""

    bridge: Bridge | None = None


def connect(loaded: LoadedSettings | None = None, *, timeout_s: float | None = None) -> Bridge:
    """Choose the bridge that the functions of this module use; read from the environment by default.

    Args:
        loaded: Its settings.
        timeout_s: Bound on one answer of the store.

    Raises:
        SettingsError: The settings are not valid.
    """
    _Default.bridge = Bridge(load_settings() if loaded is None else loaded, timeout_s=timeout_s)
    return _Default.bridge


def current_bridge() -> Bridge:
    """Give the bridge that the functions of this module use."""
    return connect() if _Default.bridge is None else _Default.bridge


def dispatch(
    job_type: str,
    payload: Payload | dict[str, Any],
    *,
    delay_s: float | None = None,
    **fields: Any,
) -> Receipt:
    """Take a command: validate it, enqueue it, give its receipt.

    Args:
        job_type: ``ask``, ``shell.cmd``, ... see ``middleware.job.schema.JOB_TYPES``.
        payload: What the job type needs, see ``middleware.job.types``.
        delay_s: Start it so many seconds from now.
        **fields: Fields of ``middleware.job.schema.JobBase``: ``source``, ``priority``, ``project``,
            ``idempotency_key``, ``timeout_seconds``, ``max_retries``, ``depends_on``, ...

    Raises:
        InvalidJob: A field is wrong; the error names it.
        UnknownProject: The project is not configured.
        QueueFull: Too many jobs wait.
        StoreUnreachable: The store is away; nothing was taken, or the same job again does no harm.
    """
    return submit(make_job(job_type, payload, **fields), delay_s=delay_s)


def submit(job: Job, *, delay_s: float | None = None) -> Receipt:
    """Enqueue a job that has been built already; see ``dispatch``."""
    return current_bridge().submit(job, delay_s=delay_s)


def dispatch_many(jobs: Iterable[Job], *, delay_s: float | None = None) -> list[Receipt]:
    """Enqueue many jobs in few round trips.

    Args:
        jobs: From ``make_job``; a generator is read while the store is at work on the jobs before.
        delay_s: Start them so many seconds from now.

    Raises:
        InvalidJob: One does not fit; none was taken, or of a generator some of those before it.
        QueueFull: The queue reached its limit; those for which there was room were taken.
        StoreUnreachable: The same jobs again do no harm.
    """
    delay_ms = 0 if delay_s is None else round(delay_s * 1000)
    return current_bridge().intake.submit(jobs, delay_ms=delay_ms)


def resolve_id(part: str) -> str:
    """Complete a job id of which a unique prefix or suffix is given.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return whole_id(current_bridge(), part)


def get_job(part: str) -> JobRecord:
    """Give a job, by its id or a unique part of it; from history or spool if the store does not have it.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return one_job(current_bridge(), part)


def get_receipt(part: str) -> Receipt:
    """Give a job's receipt; see ``get_job``."""
    return one_receipt(current_bridge(), part)


def list_jobs(
    *,
    status: str | None = None,
    job_type: str | None = None,
    project: str | None = None,
    source: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> JobPage:
    """Give a page of jobs, newest first; see ``middleware.job.reader.Reader.page``."""
    return current_bridge().reader.page(
        status=status, job_type=job_type, project=project, source=source, limit=limit, cursor=cursor
    )


def all_jobs(*, limit: int = 50, cursor: str | None = None, **narrowing: str | None) -> JobPage:
    """Give a page of the jobs of store and history, the latest id first; see ``ingress.core.listing``.

    Args:
        limit: How many at most.
        cursor: ``next`` of the page before.
        **narrowing: Fields of ``middleware.archive.search.Narrowing``: ``status``, ``job_type``,
            ``project``, ``source``, ``day`` and ``text``.

    Raises:
        InvalidJob: One of these cannot be.
        HistoryBroken: The history cannot be read.
    """
    from ingress.core.listing import Catalog
    from middleware.archive.search import Narrowing

    with Catalog(current_bridge()) as catalog:
        return catalog.page(Narrowing(**narrowing), limit=limit, cursor=cursor)


def export_jobs(**narrowing: str | None) -> Iterator[JobRecord]:
    """Yield the jobs of store and history in full, each once; see ``all_jobs``."""
    from ingress.core.listing import Catalog
    from middleware.archive.search import Narrowing

    with Catalog(current_bridge()) as catalog:
        yield from catalog.every(Narrowing(**narrowing))


def wait_for(part: str, *, timeout_s: float | None = None) -> JobRecord:
    """Block until a job has ended; woken by its last event.

    Args:
        part: The job's id, or a unique part of it.
        timeout_s: For how long at most; None: as long as it takes.

    Raises:
        WaitTimeout: The time ran out.
        JobNotFound: No job fits.
    """
    from ingress.core.waiting import wait_for_job

    return wait_for_job(current_bridge(), part, timeout_s=timeout_s)


def follow(part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job at once and after every change, up to its end; see ``wait_for``."""
    from ingress.core.waiting import follow_job

    return follow_job(current_bridge(), part, timeout_s=timeout_s)


def follow_all(*, after: str = "$", idle_s: float | None = None) -> Iterator[JobEvent | None]:
    """Yield every change of every job; None after ``idle_s`` seconds without one."""
    return current_bridge().follower.follow_all(after=after, idle_s=idle_s)


def read_output(part: str, *, follow: bool = False, after: str = "-") -> Iterator[OutputChunk]:
    """Yield a job's output; with ``follow``, as it is written, until the job has ended.

    Of a job that only the history has, the end of it that is kept there; of one in the spool, none.
    """
    from ingress.core.waiting import output_of

    return output_of(current_bridge(), part, follow=follow, after=after)


def cancel(part: str, *, reason: str = "cancelled by a program") -> CancelReply:
    """Cancel a job wherever it is: before it starts at once, while it runs through its worker.

    Args:
        part: The job's id, or a unique part of it.
        reason: Who cancels it; kept with the job.

    Raises:
        JobNotFound: No job fits.
    """
    return current_bridge().cancel(part, reason)


def retry(part: str, *, reason: str = "retried by a program") -> Receipt:
    """Run a failed or cancelled job again.

    Raises:
        WrongState: It has neither failed nor been cancelled.
        JobNotFound: No job fits.
    """
    return current_bridge().retry(part, reason)


def approve(part: str, *, actor: str, reason: str = "") -> Receipt:
    """Let a job go on that waits for approval; the same again does no harm.

    Args:
        part: The job's id, or a unique part of it.
        actor: Who approves it; on the receipt.
        reason: Why, one sentence; on the receipt too.

    Raises:
        WrongState: It does not wait for approval (any more), or it has expired.
        JobNotFound: No job fits.
    """
    return current_bridge().approve(part, actor, reason)


def deny(part: str, *, actor: str, reason: str = "") -> Receipt:
    """Cancel a job that waits for approval; see ``approve``."""
    return current_bridge().deny(part, actor, reason)


def list_approvals(limit: int = 50) -> list[JobRecord]:
    """Give the jobs that wait for approval, the oldest first.

    Args:
        limit: How many at most.
    """
    return current_bridge().approvals(limit)


def purge_jobs(status: str) -> int:
    """Delete all ended jobs of one state with all their keys, some at a time, and give how many they were.

    Args:
        status: ``completed``, ``failed`` or ``cancelled``.
    """
    scripts = current_bridge().scripts
    deleted = 0
    while batch := scripts.purge(status, PURGE_BATCH):
        deleted += batch
    return deleted


def bridge_status() -> dict[str, Any]:
    """Give the state of the bridge, in the form of ``3ox status --json``.

    Raises:
        StoreUnreachable: The store is away.
    """
    from ingress.core.status_report import overview

    return overview(current_bridge())
