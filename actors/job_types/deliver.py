"""``deliver``: the delivery of a result to one destination. The actor is ``actors.deliver.deliver``."""

from __future__ import annotations

from middleware.job.keys import DELIVER_QUEUE
from middleware.job.types import DELIVER, JOB_TYPES, JobType, NonEmpty, Payload
from ops.settings.work import TypeOverrides


class DeliverPayload(Payload, frozen=True, kw_only=True):
    """The delivery of a result to one destination; created by the end of the job, see ``prelude.lua``."""

    job_id: NonEmpty
    sink: NonEmpty


JOB_TYPES.add(
    JobType(
        name=DELIVER,
        summary="The delivery of a job's result to one destination.",
        payload=DeliverPayload,
        actor="actors.deliver:deliver",
        queue=DELIVER_QUEUE,
        # About a day of retries, at most 30 minutes apart: a receiver may be down for a day.
        limits=TypeOverrides(timeout_s=120.0, max_retries=100, backoff_max_s=1800.0),
        internal=True,
        title=("sink",),
        example={"job_id": "01KB9X", "sink": "outbox"},
    )
)
