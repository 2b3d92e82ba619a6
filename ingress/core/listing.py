"""List and search the jobs of store and history as one.

A finished job is in both for a while, with the same content. It is read from the history once it is there in
its final state; jobs that have not finished, finished a moment ago or run again are read from the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec

from ingress.core.bridge import Bridge
from middleware.archive.archivist import OVERLAP_MS
from middleware.archive.history import ArchivedJob, History
from middleware.archive.search import JobFilter, check_day, having_words
from middleware.archive.snapshot import read_snapshots
from middleware.job.ids import is_id_part
from middleware.job.keys import QUEUE
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import InvalidJob

#: Prefixes of cursors. List: an id. Unfinished jobs: a cursor of the store. Search: the last number of the
#: history when the search began, and the number or the id below which it continues.
_LIST, _UNFINISHED, _SEARCH = "i:", "w:", "s:"
#: How many unfinished jobs of each state, the latest ones, are searched for a day or for words: the store
#: has no index of these.
_SCAN_MAX = 2_000
_CHUNK = 200
#: How many reads fill a page at most; the store has no index of sources, for instance.
_READS_MAX = 20
_EXPORT_PAGE = 500


class Catalog:
    """The jobs of a bridge's store and of this host's history; for use by the thread that created it.

    Args:
        bridge: The bridge.
        history: The history; by default the one of the bridge's workspace.

    Raises:
        HistoryBroken: The history cannot be read.
    """

    def __init__(self, bridge: Bridge, history: History | None = None) -> None:
        self._bridge = bridge
        self._reader = bridge.reader
        self._history = History(bridge.loaded.workspace.history_db) if history is None else history

    def __enter__(self) -> Self:
        """Return the catalog; the history is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the history."""
        self._history.close()

    def page(self, filters: JobFilter, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """Return a page of jobs, the latest id first; a page with fewer jobs is not necessarily the last.

        A search lists the jobs first that the history does not have yet, then the latest archived.

        Args:
            filters: Which jobs to list.
            limit: Maximum number of jobs.
            cursor: ``next`` of the previous page.

        Raises:
            InvalidJob: The cursor is of another list; a state, job type or day is not valid; a search has
                no words.
            StoreUnreachable: The store is unavailable.
            HistoryBroken: The history cannot be read.
        """
        jobs, following = self._page(filters, limit, cursor)
        for _ in range(_READS_MAX):
            if following is None or len(jobs) == limit:
                break
            more, following = self._page(filters, limit - len(jobs), following)
            jobs += more
        summary = self._reader.summary(job_type=filters.job_type, project=filters.project)
        return JobPage([_listed(record) for record in jobs], summary, following)

    def _page(self, filters: JobFilter, limit: int, cursor: str | None) -> tuple[list[JobRecord], str | None]:
        if filters.day is not None:
            check_day(filters.day)
        kind = _LIST if filters.text is None else _SEARCH
        if kind == _LIST and filters.status is not None and filters.status not in FINAL:
            kind = _UNFINISHED
        if cursor is not None and not cursor.startswith(kind):
            raise _no_cursor(cursor)
        place = None if cursor is None else cursor.removeprefix(kind)
        how = {_LIST: self._merged, _UNFINISHED: self._unfinished, _SEARCH: self._found}[kind]
        jobs, following = how(filters, limit, place)
        return jobs, None if following is None else kind + following

    def _unfinished(
        self, filters: JobFilter, limit: int, place: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Return jobs of an unfinished state, which only the store has."""
        page = self._reader.page(
            status=filters.status,
            job_type=filters.job_type,
            project=filters.project,
            source=filters.source,
            limit=limit,
            cursor=place,
        )
        return [record for record in page.jobs if filters.matches(record)], page.next

    def _merged(
        self, filters: JobFilter, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        if below is not None and not is_id_part(below):
            raise _no_cursor(f"{_LIST}{below}")
        live, live_floor = self._live(filters, limit, below)
        rows = self._history.page(filters, limit=limit + 1, below=below)
        past_floor = rows[-1].record.job_id if len(rows) > limit else None
        found = {past.record.job_id: past.record for past in self._as_they_ended(rows)}
        found.update((record.job_id, record) for record in live)
        # Store and history may each have more jobs below their floor; they belong to the next page.
        floor = max((at for at in (live_floor, past_floor) if at is not None), default=None)
        ids = sorted((job_id for job_id in found if floor is None or job_id >= floor), reverse=True)
        jobs = [found[job_id] for job_id in ids[:limit]]
        return jobs, jobs[-1].job_id if len(ids) > limit else floor

    def _live(self, filters: JobFilter, limit: int, below: str | None) -> tuple[list[JobRecord], str | None]:
        """Return jobs of the store by id, and the id down to which they are all (None: to the end)."""
        if filters.status is not None or filters.day is not None:
            return self._of_store_only(filters, limit, below)
        page = self._reader.page(
            job_type=filters.job_type,
            project=filters.project,
            source=filters.source,
            limit=limit,
            cursor=below,
        )
        return page.jobs, page.next

    def _of_store_only(
        self, filters: JobFilter, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Return as ``_live`` does, for jobs that the history does not have in their present state."""
        ids = [job_id for job_id in self._candidates(filters) if below is None or job_id < below]
        found: list[JobRecord] = []
        for at in range(0, len(ids), _CHUNK):
            some = ids[at : at + _CHUNK]
            found += [record for record in self._reader.records(some) if filters.matches(record)]
            if len(found) > limit:
                return found, some[-1]
        return found, None

    def _candidates(self, filters: JobFilter) -> list[str]:
        """Return the ids of jobs that the history does not have in their present state, the latest first."""
        status = filters.status
        ids: set[str] = set()
        for state in State if status is None else (State(status),):
            ids |= self._not_archived(state, filters) if state in FINAL else self._ids_in(state)
        return sorted(ids, reverse=True)

    def _ids_in(self, state: State) -> set[str]:
        # Each queue has its own set of queued jobs; the other states have one for all queues.
        queues = self._reader.queues() if state is State.QUEUED else [QUEUE]
        replies = self._reader.read(
            [("ZREVRANGE", self._reader.keys.state(state, queue), 0, _SCAN_MAX - 1) for queue in queues]
        )
        return {item.decode() for reply in replies for item in reply}

    def _not_archived(self, state: State, filters: JobFilter) -> set[str]:
        """Return finished jobs that are not archived yet; without a scheduler, that is all of them."""
        key, since_ms = self._reader.keys.state(state), self._history.places().get(str(state), 0)
        ids: set[str] = set()
        step = 1000
        offset = 0
        while filters.text is None or offset < _SCAN_MAX:
            flat = self._reader.store.call(
                *("ZREVRANGEBYSCORE", key, "+inf", max(0, since_ms - OVERLAP_MS), "WITHSCORES"),
                *("LIMIT", offset, step),
            )
            found = {item.decode(): int(float(at)) for item, at in zip(flat[::2], flat[1::2], strict=True)}
            known = self._history.ended_ms(list(found))
            ids |= {job_id for job_id, at in found.items() if known.get(job_id) != at}
            if len(found) < step:
                break
            offset += step
        return ids

    def _as_they_ended(self, rows: list[ArchivedJob]) -> list[ArchivedJob]:
        """Return the archived jobs except those that the store has in another state: they were retried."""
        if not rows:
            return []
        keys = self._reader.keys
        lives = self._reader.read(
            [("HMGET", keys.job(past.record.job_id), "status", "completed") for past in rows]
        )
        return [
            past
            for past, (status, completed) in zip(rows, lives, strict=True)
            if status is None or (status.decode() in FINAL and int(completed or 0) == past.ended_ms)
        ]

    def _found(self, filters: JobFilter, limit: int, place: str | None) -> tuple[list[JobRecord], str | None]:
        top, below, live_below = self._search_place(place)
        jobs: list[JobRecord] = []
        if below is None:
            ids = [
                job_id for job_id in self._candidates(filters) if live_below is None or job_id < live_below
            ]
            records = [record for record in self._records(ids) if filters.matches(record)]
            live = having_words(records, filters.text or "")
            jobs = live[:limit]
            if len(live) > limit:
                return jobs, f"{top}:i{jobs[-1].job_id}"
        # Jobs archived since the first page were listed there.
        from_number = top + 1 if below is None else below
        room = limit - len(jobs)
        rows = self._history.search(filters, limit=room + 1, below=from_number)
        given = rows[:room]
        jobs += [past.record for past in self._as_they_ended(given)]
        last = given[-1].number if given else from_number
        return jobs, f"{top}:{last}" if len(rows) > room else None

    def _search_place(self, place: str | None) -> tuple[int, int | None, str | None]:
        """Return a cursor's parts: last number when the search began, number and id to continue below."""
        if place is None:
            return self._history.last_number(), None, None
        top, _, last = place.partition(":")
        if top.isdecimal() and last[:1] == "i" and is_id_part(last[1:]):
            return int(top), None, last[1:]
        if top.isdecimal() and last.isdecimal() and len(top) < 19 > len(last):  # noqa: PLR2004 (63 bits)
            return int(top), int(last), None
        raise _no_cursor(f"{_SEARCH}{place}")

    def _records(self, ids: list[str]) -> Iterator[JobRecord]:
        for at in range(0, len(ids), _CHUNK):
            yield from self._reader.records(ids[at : at + _CHUNK])

    def every(self, filters: JobFilter) -> Iterator[JobRecord]:
        """Yield all jobs in full, each once, in the order of ``page``."""
        cursor: str | None = None
        while True:
            jobs, cursor = self._page(filters, _EXPORT_PAGE, cursor)
            # In lists, jobs of the store have no attempts and no deliveries.
            thin = [record.job_id for record in jobs if not record.attempts]
            whole = {item.record.job_id: item.record for item in read_snapshots(self._reader, thin)}
            yield from (whole.get(record.job_id, record) for record in jobs)
            if cursor is None:
                return


def _listed(record: JobRecord) -> JobRecord:
    """Return a job without what lists do not have."""
    if record.attempts or record.deliveries:
        return msgspec.structs.replace(record, attempts=[], deliveries=[])
    return record


def _no_cursor(cursor: str) -> InvalidJob:
    return InvalidJob(
        f"Cursor {cursor!r} is not valid for this list.",
        remedy="Omit it to begin with the first page.",
        field="cursor",
    )
