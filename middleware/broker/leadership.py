"""Leads, or follows: of several clocks one has the lease; see ``lead.lua``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from middleware.broker.scripts import Scripts


def steady_s() -> float:
    """Give the seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    boot_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(boot_clock)


class Term(Struct, frozen=True):
    """A time in office.

    Attributes:
        fence: Its number; greater than that of every term before.
        ends_s: Until when the lease lasts at least, by ``steady_s``.
    """

    fence: int
    ends_s: float

    @property
    def left_s(self) -> float:
        """How long the lease lasts yet, in seconds; below 0 when it has ended."""
        return self.ends_s - steady_s()


class Claim(Struct, frozen=True):
    """Reply to ``claim``.

    Attributes:
        term: Ours; None if somebody else leads.
        now_ms: The store's time.
        holder: Who leads.
        left_s: When somebody else leads: how long at least, in seconds.
        new: Whether this term is not the one of our claim before.
    """

    term: Term | None
    now_ms: int
    holder: str
    left_s: float = 0.0
    new: bool = False


class Leadership:
    """One candidate; safe for several threads.

    Args:
        scripts: Where the lease is.
        member: Name of the candidate, unique.
        lease_s: How long a lease lasts; to be claimed again well before it ends.
    """

    def __init__(self, scripts: Scripts, member: str, *, lease_s: float) -> None:
        self._scripts = scripts
        self.member = member
        self.lease_s = lease_s
        self._lock = threading.Lock()
        self._term: Term | None = None

    def claim(self) -> Claim:
        """Become or stay the leader, if nobody else is.

        Raises:
            StoreUnreachable: Who leads cannot be known; a term that we have goes on until its lease ends.
        """
        # The lease begins at the store after this moment, so it ends there no sooner than we think.
        asked_s = steady_s()
        reply = self._scripts.run("lead", "claim", self.member, round(self.lease_s * 1000))
        fence, now_ms = int(reply[1]), int(reply[2])
        with self._lock:
            if reply[0] == b"leader":
                before = self._term
                self._term = Term(fence, asked_s + self.lease_s)
                new = before is None or before.fence != fence
                return Claim(self._term, now_ms, self.member, new=new)
            self._term = None
        return Claim(None, now_ms, reply[3].decode(), left_s=int(reply[4]) / 1000)

    @property
    def term(self) -> Term | None:
        """Our term, None if we do not lead or our lease may have ended."""
        with self._lock:
            term = self._term
        return term if term is not None and term.left_s > 0 else None

    def release(self) -> None:
        """Give the lease up, so that the next one need not wait for its end.

        Raises:
            StoreUnreachable: It ends by itself.
        """
        with self._lock:
            term, self._term = self._term, None
        if term is not None:
            self._scripts.run("lead", "release", self.member)

    def depose(self, holder: str) -> None:
        """End the term of a leader that is known to be dead: nobody need wait for its lease to end."""
        self._scripts.run("lead", "release", holder)

    def note(self, term: Term, key: str, values: Mapping[str, str | bytes]) -> bool:
        """Write fields of a hash, if this term is still the last one.

        Args:
            term: Under which we act.
            key: Of the hash, without the bridge's prefix.
            values: Fields and their values.

        Returns:
            Whether it was written; if not, somebody else leads.
        """
        pairs = [part for pair in values.items() for part in pair]
        return self._written(self._scripts.run("lead", "note", term.fence, key, *pairs)[0])

    def forget(self, term: Term, key: str, fields: Sequence[str]) -> bool:
        """Remove fields of a hash; see ``note``."""
        return self._written(self._scripts.run("lead", "forget", term.fence, key, *fields)[0])

    @staticmethod
    def _written(reply: bytes) -> bool:
        return reply == b"noted"
