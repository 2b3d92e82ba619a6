"""Brings ended jobs from the store into the history, before the store lets go of them.

The sets of ended jobs are sorted by the store's clock, so "from where we were" is a time. It is kept in the
history itself, in the transaction of the rows that it stands for: after a crash nothing is missing, and what
is read twice is written to the same row.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from middleware.archive.history import History, Row
from middleware.job.reader import Reader
from middleware.job.records import Receipt
from middleware.job.states import FINAL
from ops.errors import JobNotFound

#: Jobs in one transaction.
BATCH = 200
#: Looked at again each time: the store's clock may have been set back a little, by a failover for instance.
_OVERLAP_MS = 2_000
#: Pieces of output are looked through from the end, this many at a time.
_PIECES = 200


class Archivist:
    """Archives for the one process that may write the history.

    Args:
        reader: Of the store.
        history: Where to.
        retention_s: How long a job stays there.
        rows_max: How many stay there.
        output_max_bytes: Of a job's output, how much of its end.
        clock: Gives the time in seconds since 1970.
    """

    def __init__(
        self,
        reader: Reader,
        history: History,
        *,
        retention_s: float,
        rows_max: int,
        output_max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._history = history
        self._retention_s = retention_s
        self._rows_max = rows_max
        self._output_max_bytes = output_max_bytes
        self._clock = clock

    def archive(self) -> int:
        """Archive some of what has ended since the last time.

        Returns:
            How many jobs were written; ``BATCH`` or more means that there may be more.

        Raises:
            StoreUnreachable: The store is away.
            HistoryBroken: The history cannot be written.
        """
        written = 0
        places = self._history.places()
        for state in sorted(FINAL):
            written += self._archive_state(state, int(places.get(state, "0")))
        return written

    def _archive_state(self, state: str, since_ms: int) -> int:
        fresh, until_ms = self._fresh(state, since_ms)
        rows = [row for job_id, ended_ms in fresh if (row := self._row(job_id, ended_ms)) is not None]
        if until_ms != since_ms or rows:
            self._history.put(rows, {state: str(until_ms)})
        return len(rows)

    def _fresh(self, state: str, since_ms: int) -> tuple[list[tuple[str, int]], int]:
        """Give jobs that the history does not have as they are now, and up to when that is all of them."""
        key = f"{self._reader.keys.prefix}jobs:{state}"
        fresh: list[tuple[str, int]] = []
        until_ms, offset = since_ms, 0
        while len(fresh) < BATCH:
            flat = self._reader.store.call(
                *("ZRANGEBYSCORE", key, max(0, since_ms - _OVERLAP_MS), "+inf", "WITHSCORES"),
                *("LIMIT", offset, BATCH),
            )
            found = [(item.decode(), int(float(at))) for item, at in zip(flat[::2], flat[1::2], strict=True)]
            if not found:
                break
            known = self._history.ended_ms([job_id for job_id, _ in found])
            fresh += [(job_id, at) for job_id, at in found if known.get(job_id) != at]
            # Jobs of this very millisecond may be on the next page: it is begun with again next time.
            until_ms = max(until_ms, found[-1][1])
            offset += len(found)
        return fresh, until_ms

    def _row(self, job_id: str, ended_ms: int) -> Row | None:
        try:
            record = self._reader.job(job_id)
            receipt: Receipt = self._reader.receipt(job_id)
        except JobNotFound:
            return None  # deleted by hand meanwhile
        return Row(record=record, receipt=receipt, ended_ms=ended_ms, output=self._output(job_id))

    def _output(self, job_id: str) -> str:
        pieces: list[str] = []
        size, top = 0, "+"
        while size < self._output_max_bytes:
            rows = self._reader.store.call(
                "XREVRANGE", self._reader.keys.output(job_id), top, "-", "COUNT", _PIECES
            )
            for row in rows:
                text = row[1][3].decode(errors="replace")
                pieces.append(text)
                size += len(text)
            if len(rows) < _PIECES:
                break
            top = f"({rows[-1][0].decode()}"
        return "".join(reversed(pieces))[-self._output_max_bytes :] if pieces else ""

    def expire(self) -> int:
        """Delete some of what the history need not keep any longer; gives how many."""
        until_ms = int((self._clock() - self._retention_s) * 1000)
        return self._history.expire(until_ms=until_ms, rows_max=self._rows_max)
