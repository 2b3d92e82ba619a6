"""The typed face of ``adopt.lua``: a worker brings its job along, instead of fetching one."""

from __future__ import annotations

from msgspec import Struct

from middleware.broker.scripts import EnqueueRequest, Scripts


class Adopted(Struct, frozen=True):
    """Reply of ``adopt``.

    Attributes:
        outcome: ``new`` or ``already`` (the job is this worker's), ``duplicate`` or ``full`` (nothing done).
        status: Of the job.
        waiting: How many jobs wait, if there are too many.
    """

    outcome: str
    status: str = ""
    waiting: int = 0

    @property
    def is_ours(self) -> bool:
        """Tell whether the worker has the job."""
        return self.outcome in {"new", "already"}


def adopt(
    scripts: Scripts, request: EnqueueRequest, *, worker_id: str, delivery: str, lease_ms: int
) -> Adopted:
    """Take a new job in and give it to a worker, in one step.

    Args:
        scripts: Where.
        request: The job; of the ordinary queue, without delay, dependencies, limits, key and approval.
        worker_id: Whose processing set it goes to.
        delivery: A token that this worker uses for this job only, and again if the reply was lost.
        lease_ms: Of the worker, from now.

    Raises:
        StoreUnreachable: No answer; the same again is safe.
    """
    reply = scripts.run(
        "adopt",
        worker_id,
        delivery,
        lease_ms,
        scripts.bounds.queue_max,
        request.job_id,
        request.priority,
        request.spec,
        request.job_type,
        request.project,
        request.input_sha256,
        request.sinks,
    )
    outcome = reply[0].decode()
    if outcome == "full":
        return Adopted(outcome, waiting=reply[1])
    return Adopted(outcome, reply[1].decode())
