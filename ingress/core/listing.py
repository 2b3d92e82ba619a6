"""Jobs of store and history as one: a list, a search, one job, its receipt and its output.

An ended job stands in both for a while, and looks the same in both. Here it comes from the history, once it
is there as it ended; from the store come those that have not ended, ended a moment ago, or run again.
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
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import InvalidJob

#: Cursors of a list: an id. Of a list of those that wait or run: a cursor of the store. Of a search: the last
#: number of the history when it began, and the number or the id below which it goes on.
_LIST, _WAITING, _SEARCH = "i:", "w:", "s:"
#: Of the jobs of one state that have not ended, so many of the latest are looked through for a day or for
#: words; there is no index of either in the store.
_LOOK_MAX = 2_000
_CHUNK = 200
#: How often a page is tried to be filled; there is no index of the doors in the store, for instance.
_LOOKS_MAX = 20
_EXPORT_PAGE = 500


class Catalog:
    """All jobs of a bridge that this host knows of; belongs to the thread that made it.

    Args:
        bridge: For those in the store.
        history: Of this host's workspace.

    Raises:
        HistoryBroken: The history cannot be read.
    """

    def __init__(self, bridge: Bridge, history: History | None = None) -> None:
        self._bridge = bridge
        self._reader = bridge.reader
        self._history = History(bridge.loaded.workspace.history_db) if history is None else history

    def __enter__(self) -> Self:
        """Give the catalog; the history is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the history."""
        self._history.close()

    def page(self, narrowing: JobFilter, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """Give a page of jobs, the latest id first; it may be short, or empty, and yet not the last.

        A search gives those first that the history does not have yet, then those archived last.

        Args:
            narrowing: Which.
            limit: How many.
            cursor: ``next`` of the page before.

        Raises:
            InvalidJob: The cursor is of another list; no such state, job type or day; no word to search for.
            StoreUnreachable: The store is away.
            HistoryBroken: The history cannot be read.
        """
        jobs, following = self._page(narrowing, limit, cursor)
        for _ in range(_LOOKS_MAX):
            if following is None or len(jobs) == limit:
                break
            more, following = self._page(narrowing, limit - len(jobs), following)
            jobs += more
        summary = self._reader.summary(job_type=narrowing.job_type, project=narrowing.project)
        return JobPage([_listed(record) for record in jobs], summary, following)

    def _page(
        self, narrowing: JobFilter, limit: int, cursor: str | None
    ) -> tuple[list[JobRecord], str | None]:
        if narrowing.day is not None:
            check_day(narrowing.day)
        kind = _LIST if narrowing.text is None else _SEARCH
        if kind == _LIST and narrowing.status is not None and narrowing.status not in FINAL:
            kind = _WAITING
        if cursor is not None and not cursor.startswith(kind):
            raise _no_cursor(cursor)
        place = None if cursor is None else cursor.removeprefix(kind)
        how = {_LIST: self._merged, _WAITING: self._waiting, _SEARCH: self._found}[kind]
        jobs, following = how(narrowing, limit, place)
        return jobs, None if following is None else kind + following

    def _waiting(
        self, narrowing: JobFilter, limit: int, place: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Those that have not ended are in the store only."""
        page = self._reader.page(
            status=narrowing.status,
            job_type=narrowing.job_type,
            project=narrowing.project,
            source=narrowing.source,
            limit=limit,
            cursor=place,
        )
        return [record for record in page.jobs if narrowing.matches(record)], page.next

    def _merged(
        self, narrowing: JobFilter, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        if below is not None and not is_id_part(below):
            raise _no_cursor(f"{_LIST}{below}")
        live, live_floor = self._live(narrowing, limit, below)
        rows = self._history.page(narrowing, limit=limit + 1, below=below)
        past_floor = rows[-1].record.job_id if len(rows) > limit else None
        found = {past.record.job_id: past.record for past in self._as_they_ended(rows)}
        found.update((record.job_id, record) for record in live)
        # Below its floor each of the two may have more, which the next page has.
        floor = max((at for at in (live_floor, past_floor) if at is not None), default=None)
        ids = sorted((job_id for job_id in found if floor is None or job_id >= floor), reverse=True)
        jobs = [found[job_id] for job_id in ids[:limit]]
        return jobs, jobs[-1].job_id if len(ids) > limit else floor

    def _live(
        self, narrowing: JobFilter, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Give jobs of the store by their id; and the id down to which these are all, if they are not all."""
        if narrowing.status is not None or narrowing.day is not None:
            return self._of_store_only(narrowing, limit, below)
        page = self._reader.page(
            job_type=narrowing.job_type,
            project=narrowing.project,
            source=narrowing.source,
            limit=limit,
            cursor=below,
        )
        return page.jobs, page.next

    def _of_store_only(
        self, narrowing: JobFilter, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """The same for those that the history does not have as they are."""
        ids = [job_id for job_id in self._candidates(narrowing) if below is None or job_id < below]
        found: list[JobRecord] = []
        for at in range(0, len(ids), _CHUNK):
            some = ids[at : at + _CHUNK]
            found += [record for record in self._reader.records(some) if narrowing.matches(record)]
            if len(found) > limit:
                return found, some[-1]
        return found, None

    def _candidates(self, narrowing: JobFilter) -> list[str]:
        """Give the ids of jobs that the history does not have as they are, the latest first."""
        status = narrowing.status
        ids: set[str] = set()
        for state in State if status is None else (State(status),):
            ids |= self._ended_lately(state, narrowing) if state in FINAL else self._not_ended(state)
        return sorted(ids, reverse=True)

    def _not_ended(self, state: State) -> set[str]:
        key = self._reader.keys.state(state)
        return {item.decode() for item in self._reader.store.call("ZREVRANGE", key, 0, _LOOK_MAX - 1)}

    def _ended_lately(self, state: State, narrowing: JobFilter) -> set[str]:
        """All of them for a list: where no clock archives, that is all that have ended."""
        key, since_ms = self._reader.keys.state(state), self._history.places().get(str(state), 0)
        ids: set[str] = set()
        step = 1000
        offset = 0
        while narrowing.text is None or offset < _LOOK_MAX:
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
        """Give jobs of the history but for those that the store has in another state: they run again."""
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

    def _found(
        self, narrowing: JobFilter, limit: int, place: str | None
    ) -> tuple[list[JobRecord], str | None]:
        top, below, live_below = self._search_place(place)
        jobs: list[JobRecord] = []
        if below is None:
            ids = [
                job_id for job_id in self._candidates(narrowing) if live_below is None or job_id < live_below
            ]
            records = [record for record in self._records(ids) if narrowing.matches(record)]
            live = having_words(records, narrowing.text or "")
            jobs = live[:limit]
            if len(live) > limit:
                return jobs, f"{top}:i{jobs[-1].job_id}"
        # What is archived while somebody pages through has been given before.
        from_number = top + 1 if below is None else below
        room = limit - len(jobs)
        rows = self._history.search(narrowing, limit=room + 1, below=from_number)
        given = rows[:room]
        jobs += [past.record for past in self._as_they_ended(given)]
        last = given[-1].number if given else from_number
        return jobs, f"{top}:{last}" if len(rows) > room else None

    def _search_place(self, place: str | None) -> tuple[int, int | None, str | None]:
        """Read a cursor: last number when the search began, number to go on below, id to go on below."""
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

    def every(self, narrowing: JobFilter) -> Iterator[JobRecord]:
        """Yield all jobs in full, each once, in the order of ``page``."""
        cursor: str | None = None
        while True:
            jobs, cursor = self._page(narrowing, _EXPORT_PAGE, cursor)
            # Those that come from the store have no attempts and no deliveries in a list.
            thin = [record.job_id for record in jobs if not record.attempts]
            whole = {item.record.job_id: item.record for item in read_snapshots(self._reader, thin)}
            yield from (whole.get(record.job_id, record) for record in jobs)
            if cursor is None:
                return


def _listed(record: JobRecord) -> JobRecord:
    """Leave out what a list does not have, wherever the job comes from."""
    if record.attempts or record.deliveries:
        return msgspec.structs.replace(record, attempts=[], deliveries=[])
    return record


def _no_cursor(cursor: str) -> InvalidJob:
    return InvalidJob(
        f"Cursor {cursor!r} is not valid for this list.",
        remedy="Omit it to begin with the first page.",
        field="cursor",
    )
