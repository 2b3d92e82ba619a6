"""Say what a job that has not started waits for, and what to do about it; for every command that waits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from ingress.core.bridge import Bridge
from ingress.core.lookup import JobHandle
from ingress.core.terminal import note
from ingress.core.text import short_id
from middleware.job.assembly import WAITING
from middleware.job.records import JobRecord
from middleware.job.schema import JOB_TYPES
from middleware.job.states import State
from ops.errors import BridgeError, WaitTimeout

#: A job that has not started after this time gets a note, in seconds.
NOTE_AFTER_S = 0.5
#: Workers that start or stop change no job, so what it waits for is read again this often.
_READ_AGAIN_S = 5.0
_WAITING_STATES = frozenset({State.QUEUED, State.SCHEDULED, State.HELD, State.RETRYING})


def is_waiting(record: JobRecord) -> bool:
    """Return whether a job waits to be started."""
    return record.status in _WAITING_STATES


def waiting_text(bridge: Bridge, record: JobRecord) -> str:
    """Return what a job waits for, with the remedy; empty if it does not wait.

    Args:
        bridge: The job's bridge.
        record: The job as it is now.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    if not is_waiting(record):
        return ""
    name = f"job {short_id(record.job_id)}"
    if record.approval == "waits":
        return f"{name} is {record.reason}: '3ox approve {record.job_id}' starts it, '3ox deny' refuses it."
    if record.status != State.QUEUED:
        return f"{name} is {record.status}: {record.reason}."
    live = bridge.reader.carriers.live()
    if not live and record.job_type in JOB_TYPES:
        return "no worker is running; the job waits until '3ox up' or '3ox worker' starts one."
    if record.reason == WAITING:
        return f"{name} is queued: {WAITING}; '3ox status' shows what the workers run."
    return f"{name} is queued: {record.reason}."


def _is_known_at_once(record: JobRecord) -> bool:
    """Return whether a job waits for something that does not pass within a moment."""
    return record.approval == "waits" or (record.status == State.QUEUED and record.reason != WAITING)


def follow_with_notes(
    bridge: Bridge, handle: JobHandle, *, timeout_s: float | None = None, said: set[str] | None = None
) -> Iterator[JobRecord]:
    """Yield a job now and after its changes, up to its final state; write to stderr what it waits for.

    Args:
        bridge: The job's bridge.
        handle: The job.
        timeout_s: Limit for the whole wait, in seconds; None waits without limit.
        said: Notes of a wait for several jobs; each is written once.

    Raises:
        WaitTimeout: The time ran out.
        JobNotFound: The job does not exist.
        StoreUnreachable: The store was unavailable for longer than 30 s.
    """
    ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
    noted: set[str] = set() if said is None else said
    pause_s: float | None = NOTE_AFTER_S
    while True:
        left_s = None if ends_at_s is None else max(0.0, ends_at_s - time.monotonic())
        latest: JobRecord | None = None
        try:
            for latest in handle.follow(timeout_s=_shorter(pause_s, left_s)):
                yield latest
                if latest.is_final:
                    return
                if is_waiting(latest) != (pause_s is not None):
                    break
                if pause_s == NOTE_AFTER_S and _is_known_at_once(latest):
                    break
        except WaitTimeout:
            if left_s is not None and (pause_s is None or left_s <= pause_s):
                raise
        if latest is None or not is_waiting(latest):
            pause_s = None
            continue
        text = waiting_text(bridge, latest)
        if pause_s is None:
            pause_s = NOTE_AFTER_S
        else:
            if text not in noted:
                note(text)
            noted.add(text)
            pause_s = _READ_AGAIN_S


def _shorter(first_s: float | None, second_s: float | None) -> float | None:
    limits = [limit for limit in (first_s, second_s) if limit is not None]
    return min(limits) if limits else None


@contextlib.contextmanager
def waiting_notes(bridge: Bridge, handle: JobHandle) -> Iterator[None]:
    """Write to stderr what a job waits for, from a thread of its own, for the time of a block."""
    ended = threading.Event()

    def follow() -> None:
        # The block follows the job as well and reports what is wrong.
        with contextlib.suppress(BridgeError):
            for _ in follow_with_notes(bridge, handle):
                if ended.is_set():
                    return

    threading.Thread(target=follow, name="waiting-notes", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
