"""One job, wherever it is: in the store, in the history when the store has let go of it, or in the spool.

The spool is looked at first, and the store believed first: what has left the one is in the other by then. The
history is opened only when neither has the job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ingress.core.bridge import Bridge
from ingress.core.spooled_jobs import Found, brief, find, receipt_of, record_of
from middleware.job.reader import Reader
from middleware.job.records import JobRecord, OutputChunk, Receipt
from ops.errors import AmbiguousJobId, BridgeError, JobNotFound, StoreUnreachable, WrongState

if TYPE_CHECKING:
    from ingress.core.listing import Catalog

_Answer = TypeVar("_Answer")


def whole_id(bridge: Bridge, part: str) -> str:
    """Complete a shortened job id.

    Args:
        bridge: Whose.
        part: The id, or a unique part of it.

    Raises:
        JobNotFound: Neither store nor history nor spool has such a job.
        AmbiguousJobId: More than one fits.
        StoreUnreachable: The store is away, and the spool has none.
    """
    return _anywhere(
        bridge,
        part,
        lambda _, job_id: job_id,
        lambda past: past.resolve(part),
        lambda found, _: found.job_id,
    )


def one_job(bridge: Bridge, part: str) -> JobRecord:
    """Give one job; see ``whole_id``."""
    return _anywhere(
        bridge,
        part,
        lambda reader, job_id: reader.job(job_id),
        lambda past: past.job(part),
        lambda _, record: record,
    )


def one_receipt(bridge: Bridge, part: str) -> Receipt:
    """Give a job's receipt; see ``whole_id``."""
    return _anywhere(
        bridge,
        part,
        lambda reader, job_id: reader.receipt(job_id),
        lambda past: past.receipt(part),
        receipt_of,
    )


def lacking(bridge: Bridge, part: str) -> BridgeError:
    """Give the error for a job that something is to be done to and that the store does not have.

    Args:
        bridge: Whose.
        part: The job's id, or a unique part of it.
    """
    found = find(bridge, part)
    record = None if found is None else record_of(bridge, found)
    if record is not None and record.is_final:
        return WrongState(f"{record.job_id} is not in the store: {record.reason}", remedy="Dispatch it anew.")
    if record is not None:
        return WrongState(
            f"{record.job_id} is not in the store yet: {record.reason}",
            remedy="Try again when it has been taken.",
        )
    missing = JobNotFound(f"there is no job {part!r}.", remedy="'3ox jobs' lists all jobs.")
    try:
        past = _ask(bridge, lambda catalog: catalog.job(part), missing)
    except BridgeError as error:
        return error
    return JobNotFound(
        f"the store has let go of {past.job_id}; the history has it as {past.status}.",
        remedy="Dispatch it anew.",
    )


def or_past(bridge: Bridge, live: Callable[[], _Answer], past: Callable[[Catalog], _Answer]) -> _Answer:
    """Give what the store says of a job, or what the history does if the store does not know it.

    Args:
        bridge: Whose.
        live: Asks the store.
        past: Asks the history.

    Raises:
        JobNotFound: Neither has it.
    """
    try:
        return live()
    except JobNotFound as error:
        return _ask(bridge, past, error)


def past_pieces(bridge: Bridge, job_id: str, after: str, error: JobNotFound) -> list[OutputChunk]:
    """Give the output that the history has of a job; raises the store's error if it has none."""
    return _ask(bridge, lambda past: past.past_pieces(job_id, after), error)


def _anywhere(
    bridge: Bridge,
    part: str,
    live: Callable[[Reader, str], _Answer],
    past: Callable[[Catalog], _Answer],
    spooled: Callable[[Found, JobRecord], _Answer],
) -> _Answer:
    found, away = find(bridge, part), None
    reader = bridge.reader if found is None else brief(bridge)
    try:
        job_id = reader.resolve(part)
        if found is not None and not found.is_aside and found.job_id != job_id:
            raise AmbiguousJobId(
                f"{part!r} fits more than one job: {found.job_id}, {job_id}.", remedy="Give more characters."
            )
        return live(reader, job_id)
    except JobNotFound as error:
        if found is None:
            return _ask(bridge, past, error)
        with contextlib.suppress(JobNotFound):
            return _ask(bridge, past, error)
    except StoreUnreachable as error:
        if found is None:
            raise
        away = error
    record = record_of(bridge, found, away)
    # It has been handed over since we looked.
    return live(bridge.reader, found.job_id) if record is None else spooled(found, record)


def _ask(bridge: Bridge, past: Callable[[Catalog], _Answer], error: JobNotFound) -> _Answer:
    if not bridge.loaded.workspace.history_db.exists():
        raise error
    # SQLite is loaded only here: whoever types waits for it.
    from ingress.core.listing import Catalog

    with Catalog(bridge) as catalog:
        return past(catalog)
