"""Takes commands in and answers about them; every door of the bridge goes through here.

    from ingress.dispatch import dispatch, wait_for
    receipt = dispatch("shell.cmd", {"argv": ["uname", "-a"]})
    print(wait_for(receipt.job_id).result)

A job is validated, gets its receipt and is in the queue when ``dispatch`` returns; if it raises, nothing
was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ingress.core import control
from ingress.core.bridge import Bridge, connect, current_bridge
from ingress.core.control import CancelReply
from ingress.core.listing import Catalog
from ingress.core.lookup import JobHandle, find
from ingress.core.status_report import overview
from middleware.archive.search import JobFilter
from middleware.job.records import JobEvent, JobPage, JobRecord, OutputChunk, Receipt
from middleware.job.schema import Job, make_job
from middleware.job.types import Payload

__all__ = [
    "Bridge",
    "CancelReply",
    "JobHandle",
    "all_jobs",
    "approve",
    "bridge_status",
    "cancel",
    "connect",
    "current_bridge",
    "deny",
    "dispatch",
    "dispatch_many",
    "export_jobs",
    "find_job",
    "follow",
    "follow_all",
    "get_job",
    "get_receipt",
    "list_approvals",
    "list_jobs",
    "purge_jobs",
    "read_output",
    "resolve_id",
    "retry",
    "submit",
    "wait_for",
]

#: How many jobs one call deletes: a few milliseconds in which the store serves nobody else.
PURGE_BATCH = 100


def dispatch(
    job_type: str,
    payload: Payload | dict[str, Any],
    *,
    delay_s: float | None = None,
    **fields: Any,
) -> Receipt:
    """Take a command: validate it, enqueue it, give its receipt.

    Args:
        job_type: ``ask``, ``shell.cmd``, ... see ``middleware.job.types.JOB_TYPES``.
        payload: What the job type needs, see ``middleware.job.types``.
        delay_s: Start it so many seconds from now.
        **fields: Fields of ``middleware.job.base.Job``: ``source``, ``priority``, ``project``,
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
    return current_bridge().admission.submit(jobs, delay_ms=delay_ms)


def resolve_id(part: str) -> str:
    """Complete a job id of which a unique prefix or suffix is given.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return find_job(part).job_id


def find_job(part: str) -> JobHandle:
    """Return a handle to a job in store, spool or history; see ``ingress.core.lookup``.

    Args:
        part: The job's id, or a prefix or suffix of it that only one job has.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return find(current_bridge(), part)


def get_job(part: str) -> JobRecord:
    """Give a job, by its id or a unique part of it; from history or spool if the store does not have it.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return find_job(part).record()


def get_receipt(part: str) -> Receipt:
    """Give a job's receipt; see ``get_job``."""
    return find_job(part).receipt()


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
        **narrowing: Fields of ``middleware.archive.search.JobFilter``: ``status``, ``job_type``,
            ``project``, ``source``, ``day`` and ``text``.

    Raises:
        InvalidJob: One of these cannot be.
        HistoryBroken: The history cannot be read.
    """
    with Catalog(current_bridge()) as catalog:
        return catalog.page(JobFilter(**narrowing), limit=limit, cursor=cursor)


def export_jobs(**narrowing: str | None) -> Iterator[JobRecord]:
    """Yield the jobs of store and history in full, each once; see ``all_jobs``."""
    with Catalog(current_bridge()) as catalog:
        yield from catalog.every(JobFilter(**narrowing))


def wait_for(part: str, *, timeout_s: float | None = None) -> JobRecord:
    """Block until a job has ended; woken by its last event.

    Args:
        part: The job's id, or a unique part of it.
        timeout_s: For how long at most; None: as long as it takes.

    Raises:
        WaitTimeout: The time ran out.
        JobNotFound: No job fits.
    """
    return find_job(part).wait(timeout_s=timeout_s)


def follow(part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job at once and after every change, up to its end; see ``wait_for``."""
    return find_job(part).follow(timeout_s=timeout_s)


def follow_all(*, after: str = "$", idle_s: float | None = None) -> Iterator[JobEvent | None]:
    """Yield every change of every job; None after ``idle_s`` seconds without one."""
    return current_bridge().follower.follow_all(after=after, idle_s=idle_s)


def read_output(part: str, *, follow: bool = False, after: str = "-") -> Iterator[OutputChunk]:
    """Yield a job's output; with ``follow``, as it is written, until the job has ended.

    Of a job that only the history has, the end of it that is kept there; of one in the spool, none.
    """
    return find_job(part).output(follow=follow, after=after)


def cancel(part: str, *, reason: str = "cancelled by a program") -> CancelReply:
    """Cancel a job wherever it is: before it starts at once, while it runs through its worker.

    Args:
        part: The job's id, or a unique part of it.
        reason: Who cancels it; kept with the job.

    Raises:
        JobNotFound: No job fits.
    """
    return control.cancel(current_bridge(), part, reason)


def retry(part: str, *, reason: str = "retried by a program") -> Receipt:
    """Run a failed or cancelled job again.

    Raises:
        WrongState: It has neither failed nor been cancelled.
        JobNotFound: No job fits.
    """
    return control.retry(current_bridge(), part, reason)


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
    return control.approve(current_bridge(), part, actor, reason)


def deny(part: str, *, actor: str, reason: str = "") -> Receipt:
    """Cancel a job that waits for approval; see ``approve``."""
    return control.deny(current_bridge(), part, actor, reason)


def list_approvals(limit: int = 50) -> list[JobRecord]:
    """Give the jobs that wait for approval, the oldest first.

    Args:
        limit: How many at most.
    """
    return control.list_approvals(current_bridge(), limit)


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
    return overview(current_bridge())
