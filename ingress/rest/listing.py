"""The list of jobs, in pages: of the store, or of store and history together."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter, QueryParameter

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.http.problems import ApiProblem
from ingress.core.listing import Catalog
from ingress.rest.contract import problems
from middleware.archive.search import JobFilter
from middleware.job.ids import ID_LENGTH
from middleware.job.reader import LIMIT_MAX
from middleware.job.records import JobPage
from middleware.job.states import State
from ops.errors import InvalidJob

_ID = f"[0-9a-hjkmnp-tv-z]{{{ID_LENGTH}}}"
#: First letters of the cursors of lists that include the history, see ``ingress.core.listing``.
_KINDS = "isw"
_WORDS_MAX_CHARS = 200


@get(
    "/v1/jobs",
    operation_id="listJobs",
    summary="List jobs",
    description="A page of jobs, newest first; with status, sorted by when they entered that state. With all,"
    " search or day, archived jobs are included, sorted by id; a search returns the most recently archived"
    " first. Such a page can be short without being the last.",
    guards=[requires("view")],
    responses=problems(409),
)
async def list_jobs(
    request: Request[Any, Any, Any],
    app_state: AppStateDependency,
    *,
    status: Annotated[State | None, Parameter(description="Only jobs in this state.")] = None,
    job_type: Annotated[
        str | None,
        QueryParameter(
            name="type", min_length=1, max_length=64, description="Only this type; see `GET /v1/types`."
        ),
    ] = None,
    project: Annotated[str | None, Parameter(description="Only this project.")] = None,
    cursor: Annotated[
        str | None,
        Parameter(
            pattern=f"^(([0-9]{{1,18}}:)?{_ID}|[{_KINDS}]:[0-9a-z:]{{1,60}})$",
            description="`next` of the previous page.",
        ),
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="Maximum number of jobs.")] = 50,
    every: Annotated[bool, QueryParameter(name="all", description="Include archived jobs.")] = False,
    search: Annotated[
        str | None,
        Parameter(
            min_length=1, max_length=_WORDS_MAX_CHARS, description="Only jobs that contain all these words."
        ),
    ] = None,
    day: Annotated[
        str | None,
        Parameter(
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
            description="Only jobs created on this day, YYYY-MM-DD, UTC.",
        ),
    ] = None,
) -> JobPage:
    """Return a page of jobs."""
    _refuse_null(request, "status", "type")
    every = every or search is not None or day is not None
    if cursor is not None and not _belongs(cursor, status, every=every):
        raise ApiProblem(
            409,
            "cursor",
            "The cursor belongs to another list.",
            remedy="Use `next` of a page with the same filters.",
            field="cursor",
        )
    state = None if status is None else str(status)
    if every:
        narrowing = JobFilter(status=state, job_type=job_type, project=project, day=day, text=search)
        return await sync_to_thread(_all_jobs, app_state, narrowing, limit, cursor)
    return await sync_to_thread(
        _page,
        app_state,
        {"status": state, "job_type": job_type, "project": project, "limit": limit, "cursor": cursor},
    )


def _belongs(cursor: str, status: State | None, *, every: bool) -> bool:
    """Return whether a cursor belongs to the requested kind of list."""
    if cursor[0] in _KINDS and cursor[1:2] == ":":
        return every
    return not every and (":" in cursor) == (status is not None)


def _page(app_state: AppState, filters: dict[str, Any]) -> JobPage:
    try:
        return app_state.read_bridge.reader.page(**filters)
    except InvalidJob as error:
        raise _no_such_list(error) from error


def _no_such_list(error: InvalidJob) -> ApiProblem:
    """Return the problem of filters that are valid by the schema, but name nothing that can be listed.

    For instance 30 February, a search without a word, a job type that no worker has published.
    """
    return ApiProblem(409, "no-such-list", error.message, remedy=error.remedy, field=error.field)


def _all_jobs(app_state: AppState, narrowing: JobFilter, limit: int, cursor: str | None) -> JobPage:
    with Catalog(app_state.read_bridge) as catalog:
        try:
            return catalog.page(narrowing, limit=limit, cursor=cursor)
        except InvalidJob as error:
            raise _no_such_list(error) from error


def _refuse_null(request: Request[Any, Any, Any], *names: str) -> None:
    """Refuse the word null, which the framework treats as a missing parameter."""
    for name in names:
        if "null" in request.query_params.getall(name, []):
            raise ApiProblem(
                400,
                "invalid-request",
                f"The parameter {name!r} cannot be 'null'.",
                remedy="Omit it.",
                field=name,
            )


ROUTES: list[Any] = [list_jobs]
