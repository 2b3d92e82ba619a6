"""Limit the number of event streams and waits that are open at the same time."""

from __future__ import annotations

import threading

from ingress.core.http.problems import ApiProblem


class StreamLimit:
    """Counts open streams and waits.

    Args:
        limit: Maximum number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Number of open streams and waits."""
        return self._taken

    def take(self) -> StreamSlot:
        """Reserve a slot.

        Raises:
            ApiProblem: The limit is reached.
        """
        with self._lock:
            if self._taken >= self._limit:
                raise ApiProblem(
                    429,
                    "too-many-streams",
                    f"{self._limit} event streams and waits are open, which is the limit.",
                    remedy="Close some, or raise [rest] streams_max in 3ox.toml.",
                    headers={"Retry-After": "5"},
                )
            self._taken += 1
        return StreamSlot(self)

    def release(self) -> None:
        """Release a slot."""
        with self._lock:
            self._taken -= 1


class StreamSlot:
    """A reserved slot; released when it is closed, or when its owner is garbage collected.

    A client that disconnects before its response has begun leaves a generator that never runs, not even its
    ``finally``; but the generator is collected, and the slot with it.
    """

    def __init__(self, limit: StreamLimit) -> None:
        self._limit: StreamLimit | None = limit

    def close(self) -> None:
        """Release the slot, once."""
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.release()

    def __del__(self) -> None:
        self.close()
