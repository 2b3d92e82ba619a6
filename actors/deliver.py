"""``deliver``: deliver the result of a finished job to one destination.

A delivery is a job of its own on the queue ``deliver``, created in the transaction that finished the job. It
is retried until the destination accepts it; a result that was accepted is not delivered again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast
from weakref import WeakKeyDictionary

import dramatiq
import msgspec

from actors.context import current_job, settings
from actors.egress import notify, outbox, plugin, telegram, webhook
from actors.egress.outcome import Delivered, Outcome
from actors.egress.retry_delay import CircuitBreaker
from actors.job_types.deliver import DeliverPayload
from middleware.broker.broker import BridgeBroker
from middleware.destinations import NOTIFY, OUTBOX, PLUGIN, TELEGRAM, WEBHOOK
from middleware.job.reader import Reader
from middleware.job.types import DELIVER, JOB_TYPES
from ops.errors import JobFailed, JobNotFound, JobRefused
from ops.settings.load import LoadedSettings

_PAUSE_FACTOR = 5
_PAUSE_MAX_S = 300.0

_Destination = Callable[[Outcome, LoadedSettings, str], Delivered]
DESTINATIONS: Final[dict[str, _Destination]] = {
    OUTBOX: outbox.deliver,
    WEBHOOK: webhook.deliver,
    NOTIFY: notify.deliver,
    TELEGRAM: telegram.deliver,
    PLUGIN: plugin.deliver,
}


class Deliver:
    """The actor.

    Args:
        reader: Reads the finished job.
        backoff_min_s: Upper bound of the wait before the first retry. The first pause of a failing
            destination is five times as long.
        backoff_max_s: Upper bound of the wait before any retry. A pause is bounded by it and by 5 minutes.
    """

    def __init__(self, reader: Reader, *, backoff_min_s: float, backoff_max_s: float) -> None:
        self._reader = reader
        self._breaker = CircuitBreaker(_PAUSE_FACTOR * backoff_min_s, min(_PAUSE_MAX_S, backoff_max_s))

    def __call__(self, payload: DeliverPayload) -> Delivered:
        """Deliver a job's result to a destination.

        Raises:
            JobFailed: The destination did not accept it; the delivery is retried.
            JobRefused: The destination can never accept it: it is unknown, or the job was removed.
        """
        kind, _, which = payload.sink.partition(":")
        destination = DESTINATIONS.get(kind)
        if destination is None:
            raise JobRefused(
                f"Unknown destination {payload.sink!r}.",
                remedy=f"This version delivers to: {', '.join(DESTINATIONS)}. Upgrade the worker.",
            )
        try:
            record = self._reader.job(payload.job_id)
            receipt = self._reader.receipt(payload.job_id)
        except JobNotFound as error:
            raise JobRefused(
                f"The job {payload.job_id} was removed before its result was delivered.",
                remedy="Raise retention_s or finished_max.",
            ) from error
        if not record.is_final:
            # The job was retried in the meantime; its next final state creates deliveries of its own.
            return Delivered(sink=payload.sink, place="superseded: the job was retried")
        outcome = Outcome(
            delivery_id=current_job().job_id,
            record=msgspec.structs.replace(record, deliveries=[]),
            receipt=receipt,
        )
        self._breaker.require_closed(payload.sink)
        try:
            delivered = destination(outcome, settings(), which)
        except JobFailed as error:
            if not isinstance(error, JobRefused):
                self._breaker.record_failure(payload.sink)
            raise
        self._breaker.record_success(payload.sink)
        return delivered


_deliverers: WeakKeyDictionary[BridgeBroker, Deliver] = WeakKeyDictionary()


def deliver(payload: DeliverPayload) -> Delivered:
    """Deliver a job's result to a destination; see ``Deliver``."""
    broker = cast("BridgeBroker", dramatiq.get_broker())
    found = _deliverers.get(broker)
    if found is None:
        values = settings().settings
        waits = JOB_TYPES.limits(DELIVER, values)
        # Of two threads, both use the first: a circuit breaker is shared.
        found = _deliverers.setdefault(
            broker,
            Deliver(
                Reader(broker.scripts.store, values.key_prefix),
                backoff_min_s=waits.backoff_min_s,
                backoff_max_s=waits.backoff_max_s,
            ),
        )
    return found(payload)
