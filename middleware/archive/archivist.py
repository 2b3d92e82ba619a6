"""Copy finished jobs from the store to the history, before retention removes them from the store.

The sets of finished jobs are sorted by the store's clock, so the position up to which a set has been read is
a time. It is written to the history in the same transaction as the rows: after a crash nothing is missing,
and a job that is read twice is written to the same row. A job is written again when one of its deliveries is
final.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from middleware.archive.history import History, HistoryRow
from middleware.archive.snapshot import read_snapshots
from middleware.job.deliveries import job_of
from middleware.job.keys import DELIVER_QUEUE
from middleware.job.reader import Reader
from middleware.job.states import FINAL
from ops.store.resp import Reply

#: Jobs in one transaction.
BATCH = 200
#: This much of a set is read again each time: the store's clock may have been set back a little, for
#: instance by a failover.
OVERLAP_MS = 2_000

_Found = list[tuple[str, int]]


class Archivist:
    """Archives jobs; used by the one process that may write the history.

    Args:
        reader: Reads the store.
        history: The history to write.
        retention_s: How long the history keeps a job.
        rows_max: Maximum number of jobs in the history.
        output_max_bytes: The history keeps this much of the end of a job's output.
        clock: Returns the time in seconds since 1970.
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
        # Per set: from where it was read and how many members that were, when nothing new was found.
        self._quiet: dict[str, tuple[int, int]] = {}
        self._behind: set[str] = set()
        # Per set: deliveries within the overlap that are in the history, and when they became final.
        self._arrived: dict[str, dict[str, int]] = {}

    def archive(self) -> int:
        """Archive the next jobs that have finished.

        Returns:
            How many jobs were written; if ``BATCH`` or more, there may be more to archive.

        Raises:
            StoreUnreachable: The store is unavailable.
            HistoryBroken: The history cannot be written.
        """
        places = self._history.places()
        seconds, micros = self._reader.store.call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        written = 0
        for state in sorted(FINAL):
            # A position in the future was written before the store's clock was set back.
            written += self._archive_state(str(state), min(places.get(state, 0), now_ms), now_ms)
        for state in sorted(FINAL):
            name = f"{DELIVER_QUEUE}:{state}"
            written += self._archive_deliveries(name, min(places.get(name, 0), now_ms), now_ms)
        return written

    def _archive_state(self, state: str, since_ms: int, now_ms: int) -> int:
        fresh, until_ms = self._fresh(f"jobs:{state}", since_ms, self._not_as_archived)
        rows = self._rows([job_id for job_id, _ in fresh])
        if until_ms != since_ms or rows:
            self._history.put(rows, {state: min(until_ms, now_ms)})
        return len(rows)

    def _archive_deliveries(self, name: str, since_ms: int, now_ms: int) -> int:
        """Write the jobs again that have a delivery which became final after they were archived."""
        arrived = self._arrived.get(name, {})

        def not_arrived(found: _Found) -> _Found:
            return [(delivery_id, at) for delivery_id, at in found if arrived.get(delivery_id) != at]

        fresh, until_ms = self._fresh(name, since_ms, not_arrived)
        ids = list(dict.fromkeys(job_of(delivery_id) for delivery_id, _ in fresh))
        # A job that is not archived yet will be, with its deliveries; one that runs again, when it has
        # finished.
        rows = self._rows(list(self._history.ended_ms(ids)))
        if until_ms != since_ms or rows:
            self._history.put(rows, {name: min(until_ms, now_ms)})
        self._arrived[name] = {
            delivery_id: at
            for delivery_id, at in (*arrived.items(), *fresh)
            if at >= min(until_ms, now_ms) - OVERLAP_MS
        }
        return len(rows)

    def _not_as_archived(self, found: _Found) -> _Found:
        known = self._history.ended_ms([job_id for job_id, _ in found])
        return [(job_id, at) for job_id, at in found if known.get(job_id) != at]

    def _fresh(self, name: str, since_ms: int, unknown: Callable[[_Found], _Found]) -> tuple[_Found, int]:
        """Return members of a set that the history does not have, and the time up to which these are all."""
        key = f"{self._reader.keys.prefix}{name}"
        # While catching up, the overlap has just been read.
        from_ms = since_ms if name in self._behind else max(0, since_ms - OVERLAP_MS)
        quiet = (from_ms, int(self._reader.store.call("ZCOUNT", key, from_ms, "+inf")))
        if self._quiet.get(name) == quiet:
            return [], since_ms
        fresh: _Found = []
        until_ms, offset = since_ms, 0
        while len(fresh) < BATCH:
            found = _pairs(
                self._reader.store.call(
                    *("ZRANGEBYSCORE", key, from_ms, "+inf", "WITHSCORES", "LIMIT", offset, BATCH)
                )
            )
            if not found:
                break
            fresh += unknown(found)
            # More jobs of this millisecond may be on the next page: the next call starts with it again.
            until_ms = max(until_ms, found[-1][1])
            offset += len(found)
        if len(fresh) < BATCH:
            self._behind.discard(name)
        else:
            self._behind.add(name)
        if not fresh:
            self._quiet[name] = quiet
        return fresh, until_ms

    def _rows(self, ids: list[str]) -> list[HistoryRow]:
        """Return the rows of those jobs that are final; one that was retried meanwhile is archived later."""
        found = read_snapshots(self._reader, ids, output_max_bytes=self._output_max_bytes)
        return [
            HistoryRow(
                record=whole.record, receipt=whole.receipt, ended_ms=whole.ended_ms, output=whole.output
            )
            for whole in found
            if whole.record.is_final
        ]

    def expire(self) -> int:
        """Remove some of the jobs beyond the history's retention; return how many, 0 if none are left."""
        until_ms = int((self._clock() - self._retention_s) * 1000)
        return self._history.expire(until_ms=until_ms, rows_max=self._rows_max)


def _pairs(flat: list[Reply]) -> _Found:
    return [(item.decode(), int(float(at))) for item, at in zip(flat[::2], flat[1::2], strict=True)]
