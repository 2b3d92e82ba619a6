"""Jobs of store and history as one: a list, a search, one job, its receipt and its output.

An ended job stands in both for a while, and looks the same in both. The store's word counts where it has one:
the job may be running again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from middleware.archive.history import History, Narrowing
from middleware.job.ids import is_id_part
from middleware.job.records import JobPage, JobRecord, Receipt
from middleware.job.states import FINAL, State
from ops.errors import AmbiguousJobId, InvalidJob, JobNotFound

if TYPE_CHECKING:
    from ingress.dispatch import Bridge

#: Cursors of a search: a number of the history's rows.
_SEARCH = "s:"
#: Cursors of a list: an id.
_LIST = "i:"
#: Jobs that have not ended are looked through up to this many; there is no index of their words.
_LIVE_MAX = 2_000
_EXPORT_PAGE = 500
#: The history is behind by what ends in two seconds; this many are looked at.
_BEHIND_MAX = 500


class Catalog:
    """All jobs of a bridge that this host knows of.

    Args:
        bridge: For those in the store.
        history: Of this host's workspace.
    """

    def __init__(self, bridge: Bridge, history: History | None = None) -> None:
        self._bridge = bridge
        workspace = bridge.loaded.workspace
        self._history = History(workspace.history_db) if history is None else history

    def page(self, narrowing: Narrowing, *, limit: int = 50, cursor: str | None = None) -> JobPage:
        """Give a page of jobs, latest first.

        Args:
            narrowing: Which.
            limit: How many.
            cursor: ``next`` of the page before.

        Raises:
            InvalidJob: The cursor is of another list.
            StoreUnreachable: The store is away.
        """
        kind = _LIST if narrowing.text is None else _SEARCH
        if cursor is not None and not cursor.startswith(kind):
            raise InvalidJob(
                f"{cursor!r} is no cursor of this list.", remedy="Begin again without one.", field="cursor"
            )
        place = None if cursor is None else cursor.removeprefix(kind)
        jobs, following = (self._listed if kind == _LIST else self._found)(narrowing, limit, place)
        summary = self._bridge.reader.summary(job_type=narrowing.job_type, project=narrowing.project)
        return JobPage(jobs, summary, following)

    def _listed(
        self, narrowing: Narrowing, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        live, live_next = self._live(narrowing, limit, below)
        past = self._history.page(narrowing, limit=limit + 1, below=below)
        known = {record.job_id for record in live}
        merged = [
            *live,
            *self._still_so([record for record in past if record.job_id not in known], narrowing),
        ]
        merged.sort(key=lambda record: record.job_id, reverse=True)
        if live_next is not None:
            # Below the end of the store's page there may be more of the store's: the next page has them.
            merged = [record for record in merged if record.job_id >= live_next]
        jobs = merged[:limit]
        more = len(merged) > limit or live_next is not None or len(past) > limit
        last = jobs[-1].job_id if jobs else live_next
        return jobs, f"{_LIST}{last}" if more and last is not None else None

    def _live(
        self, narrowing: Narrowing, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        """Give jobs of the store by their id; and the id down to which these are all, if they are not all."""
        if narrowing.status in FINAL and self._history.places():
            return self._just_ended(narrowing, below), None
        page = self._bridge.reader.page(
            job_type=narrowing.job_type, project=narrowing.project, limit=limit, cursor=below
        )
        return [record for record in page.jobs if narrowing.fits(record)], page.next

    def _just_ended(self, narrowing: Narrowing, below: str | None) -> list[JobRecord]:
        """Give those that the history may not have yet: it is a moment behind."""
        page = self._bridge.reader.page(status=narrowing.status, limit=_BEHIND_MAX)
        return [
            record
            for record in page.jobs
            if narrowing.fits(record) and (below is None or record.job_id < below)
        ]

    def _still_so(self, records: list[JobRecord], narrowing: Narrowing) -> list[JobRecord]:
        """Give jobs of the history, those that the store has as they are there: one may be running again."""
        reader = self._bridge.reader
        statuses = reader.read(
            [("HGET", reader.keys.job(record.job_id), "status") for record in records] or [("PING",)]
        )
        found = []
        for record, status in zip(records, statuses, strict=False):
            now = record if status is None or status.decode() == record.status else reader.job(record.job_id)
            if narrowing.fits(now):
                found.append(now)
        return found

    def _found(
        self, narrowing: Narrowing, limit: int, below: str | None
    ) -> tuple[list[JobRecord], str | None]:
        if below is not None and not below.isdigit():
            raise InvalidJob(
                f"{below!r} is no cursor of this list.", remedy="Begin again without one.", field="cursor"
            )
        live = [] if below is not None else self._live_found(narrowing, limit)
        rows = self._history.search(narrowing, limit=limit, below=None if below is None else int(below))
        known = {record.job_id for record in live}
        past = self._still_so([record for _, record in rows if record.job_id not in known], narrowing)
        following = f"{_SEARCH}{rows[-1][0]}" if len(rows) == limit else None
        return [*live, *past], following

    def _live_found(self, narrowing: Narrowing, limit: int) -> list[JobRecord]:
        found: list[JobRecord] = []
        for state in (state for state in State if state not in FINAL):
            page = self._bridge.reader.page(status=state, limit=_LIVE_MAX)
            found += [record for record in page.jobs if narrowing.fits(record)]
        found.sort(key=lambda record: record.job_id, reverse=True)
        return found[:limit]

    def every(self, narrowing: Narrowing) -> Iterator[JobRecord]:
        """Yield all jobs, latest first, a page at a time."""
        cursor: str | None = None
        while True:
            page = self.page(narrowing, limit=_EXPORT_PAGE, cursor=cursor)
            yield from page.jobs
            cursor = page.next
            if cursor is None:
                return

    def resolve(self, part: str) -> str:
        """Complete a shortened job id; see ``Reader.resolve``."""
        word = part.rpartition(":")[2].strip().lower()
        past = self._history.resolve(word) if is_id_part(word) else []
        try:
            found = {self._bridge.reader.resolve(part), *past}
        except JobNotFound:
            found = set(past)
            if not found:
                raise
        if len(found) > 1:
            names = ", ".join(sorted(found))
            raise AmbiguousJobId(f"{part!r} fits more than one job: {names}.", remedy="Give more characters.")
        return found.pop()

    def job(self, part: str) -> JobRecord:
        """Give one job, by its id or a unique part of it.

        Raises:
            JobNotFound: Neither store nor history has it.
        """
        job_id = self.resolve(part)
        try:
            return self._bridge.reader.job(job_id)
        except JobNotFound:
            past = self._history.job(job_id)
            if past is None:
                raise
            return past

    def receipt(self, part: str) -> Receipt:
        """Give a job's receipt; see ``job``."""
        job_id = self.resolve(part)
        try:
            return self._bridge.reader.receipt(job_id)
        except JobNotFound:
            past = self._history.receipt(job_id)
            if past is None:
                raise
            return past

    def past_output(self, job_id: str) -> str | None:
        """Give the end of the output of a job that the store no longer has; None if it is not here either."""
        return self._history.output(job_id)
