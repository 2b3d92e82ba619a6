"""Attempts that were parked: what is known of them, and how long the next wait is.

A job whose actor raises ``JobParked`` goes to ``retrying`` without using up a retry. That it was parked
stands in its receipt chain, written in the same step as everything else about the end of the attempt; from
there it is read when a later attempt fails.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from middleware.job.states import State

#: How the reason of a parked attempt begins.
PARKED = "parked until "
#: Whoever says "now" again and again is believed less and less: 1 s, 2 s, 4 s, ... between two attempts.
_DOUBLINGS_MAX = 6
#: Jobs that wait for the same moment come back within a tenth of their wait, at most within this.
_SPREAD_MAX_S = 5.0


class Parks(Struct, frozen=True, kw_only=True):
    """What came before this attempt.

    Attributes:
        count: Attempts that were parked, since the job was last dispatched or retried by hand.
        since_ms: When the first of them was, by the store's clock; None if there is none.
        now_ms: The last entry of the chain: about now, by the same clock.
    """

    count: int = 0
    since_ms: int | None = None
    now_ms: int = 0

    @property
    def parked_s(self) -> float:
        """How long ago the first was."""
        return 0.0 if self.since_ms is None else (self.now_ms - self.since_ms) / 1000


class _Line(Struct):
    """What is needed here of a line of the chain."""

    at: int
    status: str
    attempt: int = 0
    reason: str = ""


_decoder = msgspec.json.Decoder(_Line)


def read_parks(chain: Sequence[bytes], *, base_attempt: int) -> Parks:
    """Read the parked attempts off a receipt chain.

    Args:
        chain: Its lines, from the first to the last.
        base_attempt: Attempts up to this one belong to an earlier life of the job.
    """
    lines = [_decoder.decode(raw) for raw in chain]
    parked = [
        line
        for line in lines
        if line.status == State.RETRYING and line.attempt > base_attempt and line.reason.startswith(PARKED)
    ]
    return Parks(
        count=len(parked),
        since_ms=parked[0].at if parked else None,
        now_ms=lines[-1].at if lines else 0,
    )


def park_wait_s(after_s: float, *, parks: int, fraction: float) -> float:
    """Give how long to wait.

    Args:
        after_s: What the job was told, in seconds.
        parks: How often it was parked before.
        fraction: 0 to 1, random: where in the spread it comes back.
    """
    least_s = 2.0 ** min(parks, _DOUBLINGS_MAX)
    told_s = max(after_s, least_s)
    return told_s + fraction * min(told_s / 10, _SPREAD_MAX_S)
