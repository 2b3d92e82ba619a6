"""The list of jobs: its filters from the address, and one page of it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from msgspec import Struct

from ingress.core.lookup import find
from ingress.core.text import uncounted
from ingress.dashboard.state import DashboardState
from middleware.archive.search import JobFilter, check_day
from middleware.job.ids import is_id_part
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import State
from ops.errors import AmbiguousJobId, JobNotFound

PAGE_SIZE = 50
SOURCES = ("cli", "shell", "rest", "webhook", "telegram", "station", "clock", "python")
_QUERY_MAX_CHARS = 200
#: Minimum length of a search word that is looked up as a part of an id; shorter ones match too many.
_ID_PART_MIN = 4


class JobFilters(Struct, frozen=True, kw_only=True):
    """Filters of the list; an empty field does not filter."""

    q: str = ""
    status: str = ""
    type: str = ""
    project: str = ""
    source: str = ""
    day: str = ""
    cursor: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> JobFilters:
        """Return the filters of a query string; unknown names are ignored."""
        return cls(
            **{
                name: query[name].strip()[:_QUERY_MAX_CHARS]
                for name in cls.__struct_fields__
                if name in query
            }
        )

    def link(self, **changes: str) -> str:
        """Return the address of the list with changed filters: its first page unless ``cursor`` is given."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "cursor"} | changes
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"/jobs?{query}" if query else "/jobs"

    @property
    def is_filtered(self) -> bool:
        """Whether any filter is set."""
        return any(getattr(self, name) for name in self.__struct_fields__ if name != "cursor")

    @property
    def uncounted(self) -> str:
        """Why the counts by state do not fit the list; empty if they do."""
        return uncounted(words=_or_none(self.q), source=_or_none(self.source), day=_or_none(self.day))

    def narrowing(self) -> JobFilter:
        """Return the filters in the form of the catalog.

        Raises:
            InvalidJob: The day is not a date.
        """
        return JobFilter(
            status=_or_none(self.status),
            job_type=_or_none(self.type),
            project=_or_none(self.project),
            source=_or_none(self.source),
            day=check_day(self.day) if self.day else None,
            text=_or_none(self.q),
        )


def read_jobs(dashboard: DashboardState, filters: JobFilters) -> JobPage:
    """Read a page of jobs; blocks on the store.

    Raises:
        InvalidJob: State, type or day is not valid, or the cursor belongs to another list.
    """
    catalog, narrowing = dashboard.catalog(), filters.narrowing()
    page = catalog.page(narrowing, limit=PAGE_SIZE, cursor=_or_none(filters.cursor))
    by_id = None if filters.cursor else _by_id(dashboard, filters.q)
    if by_id is None or any(record.job_id == by_id.job_id for record in page.jobs):
        return page
    return JobPage([by_id, *page.jobs], page.summary, page.next)


def choices(dashboard: DashboardState) -> list[tuple[str, str, list[str]]]:
    """Return the selectable filters: field, label, values; blocks on the store."""
    projects = sorted(dashboard.app_state.projects)
    return [
        ("status", "State", [str(state) for state in State]),
        ("type", "Type", list(dashboard.bridge.admission.types.names())),
        *([("project", "Project", projects)] if projects else []),
        ("source", "Source", list(SOURCES)),
    ]


def _by_id(dashboard: DashboardState, word: str) -> JobRecord | None:
    """Return the only job whose id starts or ends with a word, None if there are none or several."""
    part = word.lower()
    if len(part) < _ID_PART_MIN or not is_id_part(part):
        return None
    try:
        return find(dashboard.bridge, part).record()
    except (AmbiguousJobId, JobNotFound):
        return None


def _or_none(value: str) -> str | None:
    return value if value else None
