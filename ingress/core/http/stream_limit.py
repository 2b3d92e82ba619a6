"""Bounds how many streams and long waits are open at a time."""

from __future__ import annotations

import threading

from ingress.core.http.problems import ApiProblem


class StreamLimit:
    """Counts what is open.

    Args:
        limit: How many may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many are open."""
        return self._taken

    def take(self) -> StreamSlot:
        """Take one.

        Raises:
            ApiProblem: All are taken.
        """
        with self._lock:
            if self._taken >= self._limit:
                raise ApiProblem(
                    429,
                    "too-many-streams",
                    f"{self._limit} event streams and waits are open.",
                    remedy="Close some, or raise [rest] streams_max in 3ox.toml.",
                    headers={"Retry-After": "5"},
                )
            self._taken += 1
        return StreamSlot(self)

    def give_back(self) -> None:
        """Count one less."""
        with self._lock:
            self._taken -= 1


class StreamSlot:
    """One of them; given back when it is closed, or when whatever holds it is dropped.

    A client that goes away before its response has begun leaves a generator that never runs, not even its
    ``finally``; but it is dropped, and this with it.
    """

    def __init__(self, slots: StreamLimit) -> None:
        self._slots: StreamLimit | None = slots

    def close(self) -> None:
        """Give it back; once."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()

    def __del__(self) -> None:
        self.close()
