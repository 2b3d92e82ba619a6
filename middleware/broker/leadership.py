"""Leader election among schedulers, by a lease in the store; see ``lead.lua``."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from msgspec import Struct

from middleware.broker.scripts import Scripts


def steady_s() -> float:
    """Return the seconds of a clock that cannot be set and that runs while the machine sleeps."""
    boot_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(boot_clock)


class Term(Struct, frozen=True):
    """One term of a leader.

    Attributes:
        fence: Its number; greater than that of every earlier term.
        ends_s: Earliest end of the lease, by ``steady_s``.
    """

    fence: int
    ends_s: float

    @property
    def left_s(self) -> float:
        """Time until the lease ends, in seconds; below 0 afterwards."""
        return self.ends_s - steady_s()


class Claim(Struct, frozen=True):
    """Reply to ``claim``.

    Attributes:
        term: This candidate's term; None if another one leads.
        now_ms: The store's time.
        holder: Name of the leader.
        left_s: If another candidate leads: time until its lease ends, in seconds.
        new: Whether the term began with this claim.
    """

    term: Term | None
    now_ms: int
    holder: str
    left_s: float = 0.0
    new: bool = False


class Leadership:
    """One candidate. Thread-safe.

    Args:
        scripts: The store functions.
        member: Unique name of the candidate.
        lease_s: Duration of a lease; claim again well before it ends.
    """

    def __init__(self, scripts: Scripts, member: str, *, lease_s: float) -> None:
        self._scripts = scripts
        self.member = member
        self.lease_s = lease_s
        self._lock = threading.Lock()
        self._term: Term | None = None

    def claim(self) -> Claim:
        """Become or stay the leader, unless another candidate is.

        Raises:
            StoreUnreachable: The leader is unknown; a term of this candidate continues until its lease ends.
        """
        # The lease begins in the store after this moment, so it ends there no earlier than computed here.
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
        """The current term; None if this candidate does not lead or its lease may have ended."""
        with self._lock:
            term = self._term
        return term if term is not None and term.left_s > 0 else None

    def release(self) -> None:
        """Release the lease, so that the next leader need not wait for its end.

        Raises:
            StoreUnreachable: The lease ends by itself.
        """
        with self._lock:
            term, self._term = self._term, None
        if term is not None:
            self._scripts.run("lead", "release", self.member)

    def depose(self, holder: str) -> None:
        """End the term of a leader that is known to be dead, without waiting for its lease to end."""
        self._scripts.run("lead", "release", holder)

    def note(self, term: Term, key: str, values: Mapping[str, str | bytes]) -> bool:
        """Write fields of a hash, if this term is still the last one.

        Args:
            term: The caller's term.
            key: Key of the hash, without the bridge's prefix.
            values: Fields and their values.

        Returns:
            Whether they were written; if not, another candidate leads.
        """
        pairs = [part for pair in values.items() for part in pair]
        return self._written(self._scripts.run("lead", "note", term.fence, key, *pairs)[0])

    def forget(self, term: Term, key: str, fields: Sequence[str]) -> bool:
        """Remove fields of a hash; see ``note``."""
        return self._written(self._scripts.run("lead", "forget", term.fence, key, *fields)[0])

    @staticmethod
    def _written(reply: bytes) -> bool:
        return reply == b"noted"
