"""Attempts that use up no retry: parked ones (the job was asked to wait), and those that lost their worker.

A job whose actor raises ``JobParked`` goes to ``retrying``. That its attempt was parked is recorded as the
reason in the job's receipt chain, in the same step as the end of the attempt; it is read from there when a
later attempt fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from middleware.job.assembly import decode_chain
from middleware.job.states import State

#: The reason of a parked attempt begins with this text; it is read back from chains of every version.
PARKED = "parked until "
#: The reason of an attempt whose worker was lost begins with this text, see ``recover.lua``.
_LOST = "recovered from "
#: The shortest wait doubles with each parked attempt of a job: 1 s, 2 s, 4 s ... 64 s.
_DOUBLINGS_MAX = 6
#: Jobs that wait for the same moment are spread over a tenth of their wait, at most over this time.
_SPREAD_MAX_S = 5.0


class FreeAttempts(Struct, frozen=True, kw_only=True):
    """The attempts of a job that use up no retry, since it was submitted or retried by hand.

    Attributes:
        parked: How many were parked.
        lost: How many lost their worker.
        since_ms: When the first parked one ended, by the store's clock; None if there are none.
        now_ms: Time of the chain's last line: about now, by the same clock.
    """

    parked: int = 0
    lost: int = 0
    since_ms: int | None = None
    now_ms: int = 0

    @property
    def waiting_s(self) -> float:
        """How long the job has been waiting, since its first parked attempt."""
        return 0.0 if self.since_ms is None else (self.now_ms - self.since_ms) / 1000


def read_free_attempts(chain: Sequence[bytes], *, base_attempt: int) -> FreeAttempts:
    """Return the attempts without a retry that a receipt chain records.

    Args:
        chain: The lines, oldest first.
        base_attempt: Attempts up to this one were made before the last retry by hand and do not count.
    """
    lines = decode_chain(chain)
    counted = [line for line in lines if line.attempt > base_attempt]
    parked = [line for line in counted if line.status == State.RETRYING and line.reason.startswith(PARKED)]
    return FreeAttempts(
        parked=len(parked),
        lost=sum(line.reason.startswith(_LOST) and line.status != State.PROCESSING for line in counted),
        since_ms=parked[0].at if parked else None,
        now_ms=lines[-1].at if lines else 0,
    )


def parked_wait_s(after_s: float, *, parked: int, fraction: float) -> float:
    """Return how long a job waits for its next attempt, in seconds.

    Args:
        after_s: The wait that was asked for, in seconds.
        parked: How many attempts were parked before.
        fraction: 0 to 1, random: its place in the spread.
    """
    wait_s = max(after_s, 2.0 ** min(parked, _DOUBLINGS_MAX))
    return wait_s + fraction * min(wait_s / 10, _SPREAD_MAX_S)
