"""The Python API: submit jobs, find them, wait for them, act on them.

    from ingress.dispatch import dispatch, wait_for
    receipt = dispatch("shell.cmd", {"argv": ["uname", "-a"]})
    print(wait_for(receipt.job_id).result)

When ``dispatch`` returns, the job is validated and in the queue; if it raises, the job was not accepted.
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

#: Jobs deleted by one call of the store, which blocks it for a few milliseconds.
PURGE_BATCH = 100


def dispatch(
    job_type: str,
    payload: Payload | dict[str, Any],
    *,
    delay_s: float | None = None,
    **fields: Any,
) -> Receipt:
    """Validate and enqueue a job, and return its receipt.

    Args:
        job_type: ``ask``, ``shell.cmd``, ... see ``middleware.job.types.JOB_TYPES``.
        payload: The payload of the job type, see ``middleware.job.types``.
        delay_s: Delay before it starts, in seconds.
        **fields: Fields of ``middleware.job.base.Job``: ``source``, ``priority``, ``project``,
            ``idempotency_key``, ``timeout_seconds``, ``max_retries``, ``depends_on``, ...

    Raises:
        InvalidJob: A field is not valid; the error names it.
        UnknownProject: The project is not configured.
        QueueFull: The queue is full.
        StoreUnreachable: The store is unavailable. Submitting the same job again does not duplicate it.
    """
    return submit(make_job(job_type, payload, **fields), delay_s=delay_s)


def submit(job: Job, *, delay_s: float | None = None) -> Receipt:
    """Enqueue a job from ``make_job``, and return its receipt; see ``dispatch``."""
    return current_bridge().submit(job, delay_s=delay_s)


def dispatch_many(jobs: Iterable[Job], *, delay_s: float | None = None) -> list[Receipt]:
    """Enqueue many jobs in few round trips, and return their receipts.

    Args:
        jobs: From ``make_job``; a generator is read while the store processes the jobs before.
        delay_s: Delay before they start, in seconds.

    Raises:
        InvalidJob: One of them is not valid; none was accepted, or of a generator some of those before it.
        QueueFull: The queue is full; the jobs for which there was room were accepted.
        StoreUnreachable: The store is unavailable. Submitting the same jobs again does not duplicate them.
    """
    delay_ms = 0 if delay_s is None else round(delay_s * 1000)
    return current_bridge().admission.submit(jobs, delay_ms=delay_ms)


def resolve_id(part: str) -> str:
    """Return the whole id for a unique prefix or suffix; a whole id is returned as it is.

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
    """Return a job by its id or a unique part of it; from spool or history if the store does not have it.

    Raises:
        JobNotFound: No job fits.
        AmbiguousJobId: More than one does.
    """
    return find_job(part).record()


def get_receipt(part: str) -> Receipt:
    """Return a job's receipt; see ``get_job``."""
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
    """Return a page of jobs, newest first; see ``middleware.job.reader.Reader.page``."""
    return current_bridge().reader.page(
        status=status, job_type=job_type, project=project, source=source, limit=limit, cursor=cursor
    )


def all_jobs(*, limit: int = 50, cursor: str | None = None, **filters: str | None) -> JobPage:
    """Return a page of the jobs of store and history, the latest id first; see ``ingress.core.listing``.

    Args:
        limit: Maximum number of jobs.
        cursor: ``next`` of the previous page.
        **filters: Fields of ``middleware.archive.search.JobFilter``: ``status``, ``job_type``,
            ``project``, ``source``, ``day`` and ``text``.

    Raises:
        InvalidJob: One of these is not valid.
        HistoryBroken: The history cannot be read.
    """
    with Catalog(current_bridge()) as catalog:
        return catalog.page(JobFilter(**filters), limit=limit, cursor=cursor)


def export_jobs(**filters: str | None) -> Iterator[JobRecord]:
    """Yield all jobs of store and history in full, each once; see ``all_jobs``."""
    with Catalog(current_bridge()) as catalog:
        yield from catalog.every(JobFilter(**filters))


def wait_for(part: str, *, timeout_s: float | None = None) -> JobRecord:
    """Wait until a job has ended, and return it.

    Args:
        part: The job's id, or a unique part of it.
        timeout_s: Limit in seconds; None waits without limit.

    Raises:
        WaitTimeout: The job has not ended in time.
        JobNotFound: No job fits.
    """
    return find_job(part).wait(timeout_s=timeout_s)


def follow(part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job now and after every change, up to its final state; see ``wait_for``."""
    return find_job(part).follow(timeout_s=timeout_s)


def follow_all(*, after: str = "$", idle_s: float | None = None) -> Iterator[JobEvent | None]:
    """Yield every change of every job, and None after each ``idle_s`` seconds without one."""
    return current_bridge().follower.follow_all(after=after, idle_s=idle_s)


def read_output(part: str, *, follow: bool = False, after: str = "-") -> Iterator[OutputChunk]:
    """Yield a job's output; with ``follow``, until the job has ended.

    The history keeps the end of the output; a job in the spool has none.
    """
    return find_job(part).output(follow=follow, after=after)


def cancel(part: str, *, reason: str = "cancelled by a program") -> CancelReply:
    """Cancel a job: at once if it has not started, through its worker if it is running.

    Args:
        part: The job's id, or a unique part of it.
        reason: Who cancels it; kept with the job.

    Raises:
        JobNotFound: No job fits.
    """
    return control.cancel(current_bridge(), part, reason)


def retry(part: str, *, reason: str = "retried by a program") -> Receipt:
    """Queue a failed or cancelled job again, and return its receipt.

    Raises:
        WrongState: The job has neither failed nor been cancelled.
        JobNotFound: No job fits.
    """
    return control.retry(current_bridge(), part, reason)


def approve(part: str, *, actor: str, reason: str = "") -> Receipt:
    """Approve a job that waits for approval; approving it again changes nothing.

    Args:
        part: The job's id, or a unique part of it.
        actor: Who approves it; recorded on the receipt.
        reason: Why; recorded on the receipt.

    Raises:
        WrongState: The job does not wait for approval, or has expired.
        JobNotFound: No job fits.
    """
    return control.approve(current_bridge(), part, actor, reason)


def deny(part: str, *, actor: str, reason: str = "") -> Receipt:
    """Cancel a job that waits for approval; see ``approve``."""
    return control.deny(current_bridge(), part, actor, reason)


def list_approvals(limit: int = 50) -> list[JobRecord]:
    """Return the jobs that wait for approval, the oldest first.

    Args:
        limit: Maximum number of jobs.
    """
    return control.list_approvals(current_bridge(), limit)


def purge_jobs(status: str) -> int:
    """Delete all jobs in one final state from the store, and return how many.

    Args:
        status: ``completed``, ``failed`` or ``cancelled``.
    """
    scripts = current_bridge().scripts
    deleted = 0
    while batch := scripts.purge(status, PURGE_BATCH):
        deleted += batch
    return deleted


def bridge_status() -> dict[str, Any]:
    """Return the state of the bridge, in the form of ``3ox status --json``.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    return overview(current_bridge())
