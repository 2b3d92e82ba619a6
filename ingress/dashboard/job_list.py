"""The list of jobs: what the address narrows it to, and the page of it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from msgspec import Struct

from ingress.core.lookup import find
from ingress.dashboard.state import DashboardState
from middleware.archive.search import Narrowing, check_day
from middleware.job.ids import is_id_part
from middleware.job.records import JobPage, JobRecord
from middleware.job.schema import JOB_TYPES
from middleware.job.states import State
from ops.errors import AmbiguousJobId, JobNotFound

PAGE_SIZE = 50
SOURCES = ("cli", "shell", "rest", "webhook", "telegram", "station", "clock", "python")
_QUERY_MAX_CHARS = 200
#: A word of so many letters may be the end of an id; a shorter one fits too many.
_ID_PART_MIN = 4


class JobFilters(Struct, frozen=True, kw_only=True):
    """What the address asks for; empty: not narrowed by this."""

    q: str = ""
    status: str = ""
    type: str = ""
    project: str = ""
    source: str = ""
    day: str = ""
    cursor: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> JobFilters:
        """Read a query; what is not known is left out."""
        return cls(
            **{
                name: query[name].strip()[:_QUERY_MAX_CHARS]
                for name in cls.__struct_fields__
                if name in query
            }
        )

    def link(self, **changes: str) -> str:
        """Give the address of this list with changes; of its first page unless they say otherwise."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "cursor"} | changes
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"/jobs?{query}" if query else "/jobs"

    @property
    def is_narrowed(self) -> bool:
        """Whether this is not the list of all jobs."""
        return any(getattr(self, name) for name in self.__struct_fields__ if name != "cursor")

    def narrowing(self) -> Narrowing:
        """Give it as store and history understand it.

        Raises:
            InvalidJob: The day is none.
        """
        return Narrowing(
            status=_given(self.status),
            job_type=_given(self.type),
            project=_given(self.project),
            source=_given(self.source),
            day=check_day(self.day) if self.day else None,
            text=_given(self.q),
        )


def read_jobs(dashboard: DashboardState, wanted: JobFilters) -> JobPage:
    """Read a page of jobs; blocks on the store.

    Raises:
        InvalidJob: There is no such state, type or day, or the cursor is of another list.
    """
    catalog, narrowing = dashboard.catalog(), wanted.narrowing()
    page = catalog.page(narrowing, limit=PAGE_SIZE, cursor=_given(wanted.cursor))
    meant = None if wanted.cursor else _by_id(dashboard, wanted.q)
    if meant is None or any(record.job_id == meant.job_id for record in page.jobs):
        return page
    return JobPage([meant, *page.jobs], page.summary, page.next)


def choices(dashboard: DashboardState) -> list[tuple[str, str, list[str]]]:
    """Give the lists to choose from: field, label, values."""
    projects = sorted(dashboard.app_state.projects)
    return [
        ("status", "State", [str(state) for state in State]),
        ("type", "Type", list(JOB_TYPES)),
        *([("project", "Project", projects)] if projects else []),
        ("source", "Source", list(SOURCES)),
    ]


def _by_id(dashboard: DashboardState, word: str) -> JobRecord | None:
    """Give the job whose id begins or ends so; None if there is none, or more than one."""
    part = word.lower()
    if len(part) < _ID_PART_MIN or not is_id_part(part):
        return None
    try:
        return find(dashboard.bridge, part).record()
    except (AmbiguousJobId, JobNotFound):
        return None


def _given(value: str) -> str | None:
    return value if value else None
