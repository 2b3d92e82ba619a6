"""The hooks of our middleware, all of them, as documented no-ops.

``JobMiddleware`` is what a middleware derives from. It narrows Dramatiq's hooks to what our broker passes: a
``BridgeBroker``, a ``JobMessage``, an exception. Hooks run in the order of the list in ``actors.registry``:
``..._starting`` and ``..._stopping`` from the outermost middleware to the innermost, ``..._started``,
``..._stopped`` and ``..._ended`` from the innermost to the outermost.
"""

from __future__ import annotations

from typing import Any

import dramatiq

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage


class JobMiddleware(dramatiq.Middleware):
    """Base of our middleware.

    An exception of a hook is logged and otherwise ignored, except that ``SkipMessage`` in ``job_starting``
    skips the attempt and ``MiddlewareError`` in a ``..._starting`` hook of the worker ends its process.
    """

    def __init_subclass__(cls) -> None:
        """Register only the hooks that a middleware has: the broker calls no others."""
        super().__init_subclass__()
        for ours, (theirs, adapter) in _ADAPTERS.items():
            if getattr(cls, ours) is not getattr(JobMiddleware, ours):
                setattr(cls, theirs, adapter)

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Called before the worker has threads and consumers.

        Args:
            broker: The broker of this process.
            worker: The ``dramatiq.Worker``.
        """

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Called when the worker's threads and consumers run."""

    def worker_stopping(self, broker: BridgeBroker, worker: Any) -> None:
        """Called when a stop was requested; jobs still run."""

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Called when the worker's threads have ended."""

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Called before an attempt, in the thread that runs it.

        Raises:
            SkipMessage: The attempt is not made; ``message.settlement`` says what becomes of the job.
        """

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Called after an attempt, in the thread that ran it, before its outcome is committed.

        Args:
            broker: The broker of this process.
            message: The attempt; ``message.settlement`` is its outcome, if a middleware has decided.
            exception: What the actor raised; None if it returned.
        """

    def job_skipped(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Called instead of ``job_ended`` when a ``job_starting`` hook skipped the attempt."""


# Typed as Dramatiq's hooks are: a broker and a message of any class. Ours passes its own.


def _before_worker_boot(self: JobMiddleware, broker: Any, worker: Any) -> None:
    self.worker_starting(broker, worker)


def _after_worker_boot(self: JobMiddleware, broker: Any, worker: Any) -> None:
    self.worker_started(broker, worker)


def _before_worker_shutdown(self: JobMiddleware, broker: Any, worker: Any) -> None:
    self.worker_stopping(broker, worker)


def _after_worker_shutdown(self: JobMiddleware, broker: Any, worker: Any) -> None:
    self.worker_stopped(broker, worker)


def _before_process_message(self: JobMiddleware, broker: Any, message: Any) -> None:
    self.job_starting(broker, message)


def _after_process_message(
    self: JobMiddleware,
    broker: Any,
    message: Any,
    *,
    result: Any | None = None,
    exception: BaseException | None = None,
) -> None:
    del result  # our broker passes none, see ``JobContext.result``
    self.job_ended(broker, message, exception)


def _after_skip_message(self: JobMiddleware, broker: Any, message: Any) -> None:
    self.job_skipped(broker, message)


#: Our hook -> Dramatiq's name of it, and what Dramatiq then calls.
_ADAPTERS = {
    "worker_starting": ("before_worker_boot", _before_worker_boot),
    "worker_started": ("after_worker_boot", _after_worker_boot),
    "worker_stopping": ("before_worker_shutdown", _before_worker_shutdown),
    "worker_stopped": ("after_worker_shutdown", _after_worker_shutdown),
    "job_starting": ("before_process_message", _before_process_message),
    "job_ended": ("after_process_message", _after_process_message),
    "job_skipped": ("after_skip_message", _after_skip_message),
}
