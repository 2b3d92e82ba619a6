"""``deliver``: bring an ended job to one of its sinks.

A delivery is a job of its own on the queue ``deliver``, made in the step that ended the job. It is tried
again until the sink has taken it; what was delivered once is not delivered again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from actors.context import current_job, settings
from actors.egress import notify, outbox, telegram, webhook
from actors.egress.outcome import Delivered, Outcome
from actors.egress.retry_delay import Rests
from middleware.destinations import NOTIFY, OUTBOX, TELEGRAM, WEBHOOK
from middleware.job.reader import Reader
from middleware.job.types import DeliverPayload
from ops.errors import JobFailed, JobNotFound, JobRefused
from ops.settings.load import LoadedSettings

_REST_FACTOR = 5
_REST_MAX_S = 300.0

_Sink = Callable[[Outcome, LoadedSettings, str], Delivered]
SINKS: Final[dict[str, _Sink]] = {
    OUTBOX: outbox.deliver,
    WEBHOOK: webhook.deliver,
    NOTIFY: notify.deliver,
    TELEGRAM: telegram.deliver,
}


class Deliver:
    """The actor.

    Args:
        reader: Reads the ended job.
        backoff_min_s: Longest wait before the first retry of a delivery; a sink rests five times as long.
        backoff_max_s: Longest wait before any; bounds a rest, which is five minutes at most.
    """

    def __init__(self, reader: Reader, *, backoff_min_s: float, backoff_max_s: float) -> None:
        self._reader = reader
        self._rests = Rests(_REST_FACTOR * backoff_min_s, min(_REST_MAX_S, backoff_max_s))

    def __call__(self, payload: DeliverPayload) -> Delivered:
        """Bring a job to a sink.

        Raises:
            JobFailed: The sink did not take it; worth another attempt.
            JobRefused: It never will: there is no such sink, or the job has been deleted.
        """
        kind, _, which = payload.sink.partition(":")
        sink = SINKS.get(kind)
        if sink is None:
            raise JobRefused(f"there is no sink {payload.sink!r}.", remedy="Use a version that has it.")
        try:
            record = self._reader.job(payload.job_id)
            receipt = self._reader.receipt(payload.job_id)
        except JobNotFound as error:
            raise JobRefused(
                f"the job {payload.job_id} was deleted before it was delivered.",
                remedy="Raise retention_s or finished_max.",
            ) from error
        if not record.is_final:
            # Retried by hand meanwhile: its next end makes deliveries of its own.
            return Delivered(sink=payload.sink, place="superseded: the job runs again")
        outcome = Outcome(
            delivery_id=current_job().job_id,
            record=msgspec.structs.replace(record, deliveries=[]),
            receipt=receipt,
        )
        self._rests.require_awake(payload.sink)
        try:
            delivered = sink(outcome, settings(), which)
        except JobFailed as error:
            if not isinstance(error, JobRefused):
                self._rests.failed(payload.sink)
            raise
        self._rests.took(payload.sink)
        return delivered
