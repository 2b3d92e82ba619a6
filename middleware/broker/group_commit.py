"""Group commit: the outcomes of several worker threads go to the store in one round trip.

The first thread to finish a job becomes the committer. Threads that finish meanwhile append their outcome to
the queue and continue with their next job; the committer takes everything that is queued until nothing is
left. So a single commit is not delayed, and under load no thread waits for the store or has to be woken,
which took most of the time of a short job. As many commits as there are threads are queued this way; beyond
that a job keeps its slot until it is committed, so that nothing more is fetched. While the store is
unavailable, commits are kept and retried.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import hiredis
from dramatiq.middleware import Interrupt

from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.broker.worker_state import WorkerState
from middleware.job.records import JobError
from ops.backoff import Backoff
from ops.errors import StoreError, StoreUnreachable
from ops.logs import JournalLine, journal
from ops.store.resp import Reply, as_error, well_formed

#: Commits in one round trip; a larger group would block the store for other clients.
_GROUP_MAX = 32
#: How often a group is started when something unexpected breaks it off: a bug, or a late interrupt.
_STARTS_MAX = 2

#: Returns a number of slots to their consumer.
Release: TypeAlias = Callable[[int], None]

logger = logging.getLogger(__name__)


class _Commit:
    """The outcome of one attempt; ``release`` is None once its slot has been returned."""

    __slots__ = ("message", "refused", "release", "settlement")

    def __init__(self, message: JobMessage, settlement: Settlement, release: Release | None) -> None:
        self.message = message
        self.settlement = settlement
        self.release = release
        self.refused = False


class GroupCommit:
    """Commits the outcomes of attempts; waits for the store while it is unavailable.

    Args:
        state: The worker process.
    """

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._waiting: deque[_Commit] = deque()
        self._under_way = 0
        self._busy = False

    def add(self, message: JobMessage, settlement: Settlement, release: Release) -> None:
        """Commit the outcome of an attempt, or leave it to the thread that is committing.

        Args:
            message: The attempt.
            settlement: Its outcome.
            release: Returns slots to the consumer; called as soon as another job may be fetched.
        """
        self._flush(message)
        with self._lock:
            leads = not self._busy
            # The committer's own thread is free for a job only after the last commit.
            early = not leads and len(self._waiting) + self._under_way < self._state.slots.count
            self._waiting.append(_Commit(message, settlement, None if early or leads else release))
            self._busy = True
        try:
            if leads:
                self._commit_all()
        finally:
            if leads or early:
                release(1)

    def _commit_all(self) -> None:
        while group := self._next_group():
            # The threads of these jobs have moved on, so no exception may lose a commit: the group is started
            # again, and the store answers `already` for what it has.
            for _ in range(_STARTS_MAX):
                try:
                    self._commit(group)
                except Interrupt:
                    logger.warning(
                        "job.interrupt_late: its job has ended; %d are being committed", len(group)
                    )
                except Exception:
                    logger.exception("job.commit_failed: %s", ", ".join(str(each.message) for each in group))
                else:
                    break
            self._discard(group)

    def _discard(self, group: list[_Commit]) -> None:
        """Remove these jobs from the vitals and return the slots that they still keep.

        A job that was not committed is on the worker's processing set but not in its vitals: the watchdog
        hands it back.
        """
        for each in group:
            if self._state.vitals is not None:
                self._state.vitals.settled(each.message.job.job_id, each.message.delivery)
            if each.release is not None:
                each.release(1)

    def _next_group(self) -> list[_Commit]:
        with self._lock:
            waiting = self._waiting
            group = [waiting.popleft() for _ in range(min(len(waiting), _GROUP_MAX))]
            self._busy = bool(group)
            self._under_way = len(group)
            return group

    def _flush(self, message: JobMessage) -> None:
        """Send the rest of the output; output that the store refuses must not cost the job its result."""
        backoff = Backoff()
        while message.context is not None:
            try:
                message.context.flush()
            except StoreUnreachable as error:
                self._state.outage.begin(error)
                backoff.sleep()
            except Exception:
                logger.exception("job.output_lost: %s", message.job.job_id)
                return
            else:
                return

    def _commit(self, group: list[_Commit]) -> None:
        backoff = Backoff()
        while group:
            answers = zip(group, self._settle(group), strict=True)
            lines: list[JournalLine] = []
            # Every answer is evaluated before anything is retried.
            group = [each for each, answer in answers if not self._is_done(each, answer, lines)]
            if lines:
                journal(lines)
            if group:
                backoff.sleep()

    def _is_done(self, commit: _Commit, answer: Reply | Exception, lines: list[JournalLine]) -> bool:
        """Return whether a commit is finished; an exception here concerns this commit only."""
        if isinstance(answer, StoreUnreachable):
            return False
        try:
            return self._evaluate(commit, answer, lines)
        except Exception:
            # The store has it; only the log line is missing.
            logger.exception("job.commit_untold: %s", commit.message)
            return True

    def _settle(self, group: list[_Commit]) -> list[Reply | Exception]:
        """Settle a group and return the replies, errors included."""
        try:
            return self._exchange(group)
        except Exception as error:
            if len(group) > 1:
                # A bug that one of them triggers; the others are committed without it.
                return [answer for each in group for answer in self._settle([each])]
            logger.exception("job.commit_failed: %s", group[0].message)
            return [error]

    def _exchange(self, group: list[_Commit]) -> list[Reply | Exception]:
        state = self._state
        commands = [
            state.scripts.settle_command(
                state.worker_id, each.message.job.job_id, each.message.delivery, each.settlement
            )
            for each in group
        ]
        try:
            replies = state.scripts.exchange(commands)
        except (StoreUnreachable, StoreError) as error:
            replies = [error] * len(group)
        answers = [as_error(reply) if isinstance(reply, hiredis.ReplyError) else reply for reply in replies]
        outage = next((answer for answer in answers if isinstance(answer, StoreUnreachable)), None)
        if outage is None:
            state.store_answered()
        else:
            state.outage.begin(outage)
        return answers

    def _evaluate(self, commit: _Commit, answer: Reply | Exception, lines: list[JournalLine]) -> bool:
        """Note a commit for the log; return False if the store refused it: it is to be a failure instead."""
        if not isinstance(answer, Exception):
            lines.append(self._line(commit, answer[0].decode(), answer[1].decode()))
            return True
        logger.error("job.settle_failed: %s: %s", commit.message.job.job_id, answer)
        if commit.refused:
            return True  # the store refuses the failure as well: the watchdog hands the job back
        commit.refused = True
        error = JobError.of(answer).encode()
        commit.settlement = Settlement(outcome="failed", error=error, reason=str(answer))
        return False

    def _line(self, commit: _Commit, answer: str, status: str) -> JournalLine:
        message, settlement = commit.message, commit.settlement
        self._state.tally[status if answer == "settled" else answer] += 1
        if settlement.outcome == "retrying":
            self._state.timer.note(settlement.delay_ms)
        superseded = answer == "superseded"
        return JournalLine(
            logging.WARNING if superseded else logging.INFO,
            "job.superseded" if superseded else f"job.{status}",
            {
                "job_id": message.job.job_id,
                "job_type": message.job.job_type,
                "trace_id": message.job.trace,
                "attempt": message.attempt,
                "reason": well_formed(settlement.reason),
            },
        )
