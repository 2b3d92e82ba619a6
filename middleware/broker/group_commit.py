"""Commits how attempts ended, those of several threads in one round trip, and keeps them until they stand.

The thread that finds nobody at it commits at once; the others put theirs down and go on with their next job,
for the first one takes along whatever lies there until nothing is left. So a single commit is not delayed,
and under load no thread waits for the store or has to be woken, which was most of the time that a short job
took. As many commits may lie here as there are threads; beyond that a job keeps its slot until it is
committed, and so nothing more is fetched.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import hiredis
from dramatiq.middleware import Interrupt

from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.job.records import JobError
from ops.backoff import Backoff
from ops.errors import StoreError, StoreUnreachable
from ops.logs import journal
from ops.store.resp import Reply, as_error, well_formed

if TYPE_CHECKING:
    from middleware.broker.broker import BridgeBroker

#: More at once would keep the store from everybody else.
_TOGETHER_MAX = 32
#: So often a commit is begun that is broken off by what ought not to happen: a bug, or a late interrupt.
_BEGUN_MAX = 2

Release: TypeAlias = Callable[[int], None]

logger = logging.getLogger(__name__)


class _Commit:
    """One attempt's end, on its way; ``release`` is there as long as it keeps a slot."""

    __slots__ = ("message", "refused", "release", "settlement")

    def __init__(self, message: JobMessage, settlement: Settlement, release: Release | None) -> None:
        self.message = message
        self.settlement = settlement
        self.release = release
        self.refused = False


class Commits:
    """Commits the ends of attempts, waiting for the store as long as it is away.

    Args:
        broker: Whose worker this is.
    """

    def __init__(self, broker: BridgeBroker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._waiting: deque[_Commit] = deque()
        self._under_way = 0
        self._busy = False

    def add(self, message: JobMessage, settlement: Settlement, release: Release) -> None:
        """Commit how an attempt ended, or leave it to the thread that is at it.

        Args:
            message: The attempt.
            settlement: How it ended.
            release: Gives back so many of its consumer's slots, as soon as another job may be fetched.
        """
        self._flush(message)
        with self._lock:
            leads = not self._busy
            # The thread that commits for the others is free for a job only when it is through with that.
            early = not leads and len(self._waiting) + self._under_way < self._broker.slots.count
            self._waiting.append(_Commit(message, settlement, None if early or leads else release))
            self._busy = True
        try:
            if leads:
                self._work_off()
        finally:
            if leads or early:
                release(1)

    def _work_off(self) -> None:
        while together := self._next():
            # The threads whose jobs these are have gone on. So what breaks in here strands none of them: it
            # is begun anew, and what stands already is answered as such.
            for _ in range(_BEGUN_MAX):
                try:
                    self._commit(together)
                except Interrupt:
                    logger.warning(
                        "job.interrupt_late: its job has ended; %d are being committed", len(together)
                    )
                except Exception:
                    logger.exception(
                        "job.commit_failed: %s", ", ".join(str(each.message) for each in together)
                    )
                else:
                    break
            self._let_go(together)

    def _let_go(self, together: list[_Commit]) -> None:
        """Forget these jobs and give back the slots that they still keep.

        Of a job that was not committed, the warden sees that this worker knows nothing, and hands it back.
        """
        for each in together:
            if self._broker.vitals is not None:
                self._broker.vitals.settled(each.message.job.job_id, each.message.delivery)
            if each.release is not None:
                each.release(1)

    def _next(self) -> list[_Commit]:
        with self._lock:
            waiting = self._waiting
            together = [waiting.popleft() for _ in range(min(len(waiting), _TOGETHER_MAX))]
            self._busy = bool(together)
            self._under_way = len(together)
            return together

    def _flush(self, message: JobMessage) -> None:
        """Send the rest of the output; what the store refuses must not cost the job its result."""
        backoff = Backoff()
        while message.context is not None:
            try:
                message.context.flush()
            except StoreUnreachable as error:
                self._broker.outage.begin(error)
                backoff.sleep()
            except Exception:
                logger.exception("job.output_lost: %s", message.job.job_id)
                return
            else:
                return

    def _commit(self, together: list[_Commit]) -> None:
        backoff = Backoff()
        while together:
            answers = zip(together, self._ask(together), strict=True)
            # All are looked at before any is tried again: each has its own answer.
            together = [each for each, answer in answers if not self._is_through(each, answer)]
            if together:
                backoff.sleep()

    def _is_through(self, commit: _Commit, answer: Reply | Exception) -> bool:
        """Tell whether nothing is left to be done for a commit; what goes wrong with it is its own affair."""
        if isinstance(answer, StoreUnreachable):
            return False
        try:
            return self._stands(commit, answer)
        except Exception:
            # It stands in the store; only the log does not say so.
            logger.exception("job.commit_untold: %s", commit.message)
            return True

    def _ask(self, together: list[_Commit]) -> list[Reply | Exception]:
        """Settle once; gives the replies, errors among them."""
        try:
            return self._settle(together)
        except Exception as error:
            if len(together) > 1:
                # A bug that one of them has brought along; the others do not suffer for it.
                return [answer for each in together for answer in self._ask([each])]
            logger.exception("job.commit_failed: %s", together[0].message)
            return [error]

    def _settle(self, together: list[_Commit]) -> list[Reply | Exception]:
        broker = self._broker
        commands = [
            broker.scripts.settle_command(
                broker.worker_id, each.message.job.job_id, each.message.delivery, each.settlement
            )
            for each in together
        ]
        try:
            replies = broker.scripts.exchange(commands)
        except (StoreUnreachable, StoreError) as error:
            replies = [error] * len(together)
        answers = [as_error(reply) if isinstance(reply, hiredis.ReplyError) else reply for reply in replies]
        away = next((answer for answer in answers if isinstance(answer, StoreUnreachable)), None)
        if away is None:
            broker.store_answered()
        else:
            broker.outage.begin(away)
        return answers

    def _stands(self, commit: _Commit, answer: Reply | Exception) -> bool:
        """Note what the store said of a commit; False if another one is to be tried in its place."""
        if not isinstance(answer, Exception):
            self._tell(commit, answer[0].decode(), answer[1].decode())
            return True
        logger.error("job.settle_failed: %s: %s", commit.message.job.job_id, answer)
        if commit.refused:
            return True  # nothing more can be done here
        commit.refused = True
        error = JobError.of(answer).encode()
        commit.settlement = Settlement(outcome="failed", error=error, reason=str(answer))
        return False

    def _tell(self, commit: _Commit, answer: str, status: str) -> None:
        message, settlement = commit.message, commit.settlement
        self._broker.tally[status if answer == "settled" else answer] += 1
        if settlement.outcome == "retrying":
            self._broker.timer.note(settlement.delay_ms)
        superseded = answer == "superseded"
        journal(
            logging.WARNING if superseded else logging.INFO,
            "job.superseded" if superseded else f"job.{status}",
            job_id=message.job.job_id,
            job_type=message.job.job_type,
            trace_id=message.job.trace,
            attempt=message.attempt,
            reason=well_formed(settlement.reason),
        )
