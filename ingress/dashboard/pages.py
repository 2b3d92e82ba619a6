"""Routes of the pages, and of their fragments, with which the script updates open pages."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from ingress.dashboard.job import JobOutput, is_on_disk, read_job, read_output, read_proof, resolve
from ingress.dashboard.job_list import JobFilters, choices, read_jobs
from ingress.dashboard.overview import read_overview
from ingress.dashboard.state import DashboardDependency, DashboardState
from ingress.dashboard.view import MEDIA_TYPES, page, static_file, visitor_of
from middleware.archive.proof import Proof
from middleware.job.records import JobPage
from ops.errors import InvalidJob

#: Static files may be cached for ever: their address contains their version.
_KEEP = "public, max-age=31536000, immutable"

AnyRequest = Request[Any, Any, Any]


@get("/")
async def show_overview(request: AnyRequest, dashboard: DashboardDependency) -> Response[str]:
    """Return the overview page."""
    return await _overview(request, dashboard, "overview.html")


@get("/ui/overview")
async def overview_fragment(request: AnyRequest, dashboard: DashboardDependency) -> Response[str]:
    """Return the changing part of the overview page."""
    return await _overview(request, dashboard, "_overview.html")


async def _overview(request: AnyRequest, dashboard: DashboardState, template: str) -> Response[str]:
    visitor = visitor_of(request, dashboard)
    view = await sync_to_thread(read_overview, dashboard)
    context = {"view": view, "place": "overview", "state_link": lambda name: JobFilters().link(status=name)}
    return page(request, template, context, visitor=visitor)


@get("/jobs")
async def show_jobs(request: AnyRequest, dashboard: DashboardDependency) -> Response[str]:
    """Return a page of the list of jobs."""
    return await _jobs(request, dashboard, "jobs.html")


@get("/ui/jobs")
async def jobs_fragment(request: AnyRequest, dashboard: DashboardDependency) -> Response[str]:
    """Return the changing part of the list of jobs."""
    return await _jobs(request, dashboard, "_jobs.html")


async def _jobs(request: AnyRequest, dashboard: DashboardState, template: str) -> Response[str]:
    visitor = visitor_of(request, dashboard)
    filters = JobFilters.read({name: str(value) for name, value in request.query_params.items()})
    found, fault = JobPage([], {}), ""
    try:
        found = await sync_to_thread(read_jobs, dashboard, filters)
    except InvalidJob as error:
        fault = str(error)
    context = {
        "page": found,
        "fault": fault,
        "filters": filters,
        "is_filtered": filters.is_filtered,
        "uncounted": filters.uncounted,
        "choices": [] if template.startswith("_") else await sync_to_thread(choices, dashboard),
        "first_link": filters.link(),
        "next_link": filters.link(cursor="" if found.next is None else found.next),
        "state_link": lambda name: filters.link(status="" if filters.status == name else name),
        "place": "jobs",
    }
    return page(request, template, context, visitor=visitor)


@get("/jobs/{job_id:str}")
async def show_job(
    request: AnyRequest, dashboard: DashboardDependency, job_id: FromPath[str]
) -> Response[str]:
    """Return the page of one job; with ``verify`` in the query, including the proof of its receipt."""
    visitor = visitor_of(request, dashboard)
    view = await sync_to_thread(read_job, dashboard, job_id)
    output: JobOutput = await sync_to_thread(read_output, dashboard, view)
    checked = "verify" in request.query_params
    verifies = checked and not view.is_on_disk
    proof = await sync_to_thread(read_proof, dashboard, view.record.job_id) if verifies else None
    shown = _proof(proof, checked=checked, on_disk=view.is_on_disk)
    context = {"view": view, "output": output, "place": "jobs", **shown}
    return page(request, "job.html", context, visitor=visitor)


@get("/ui/jobs/{job_id:str}")
async def job_fragment(
    request: AnyRequest, dashboard: DashboardDependency, job_id: FromPath[str]
) -> Response[str]:
    """Return the changing parts of the page of a job, except its output."""
    visitor = visitor_of(request, dashboard)
    view = await sync_to_thread(read_job, dashboard, job_id)
    return page(request, "_job.html", {"view": view}, visitor=visitor)


@get("/ui/jobs/{job_id:str}/proof")
async def proof_fragment(
    request: AnyRequest, dashboard: DashboardDependency, job_id: FromPath[str]
) -> Response[str]:
    """Return the proof of a job's receipt."""
    visitor = visitor_of(request, dashboard)
    full_id = await sync_to_thread(resolve, dashboard, job_id)
    on_disk = await sync_to_thread(is_on_disk, dashboard, full_id)
    proof = None if on_disk else await sync_to_thread(read_proof, dashboard, full_id)
    return page(request, "_proof.html", _proof(proof, checked=True, on_disk=on_disk), visitor=visitor)


def _proof(proof: Proof | None, *, checked: bool, on_disk: bool) -> dict[str, Any]:
    unsealed = proof is not None and proof.sealed < proof.transitions and len(proof.faults) == 1
    return {"proof": proof, "checked": checked, "only_unsealed": unsealed, "on_disk": on_disk}


@get("/ui/static/{name:str}")
async def static(name: FromPath[str]) -> Response[bytes]:
    """Return a static file."""
    try:
        data, _ = static_file(name)
    except KeyError as error:
        raise NotFoundException from error
    return Response(data, media_type=MEDIA_TYPES[name], headers={"Cache-Control": _KEEP})


ROUTES: list[Any] = [
    show_overview,
    overview_fragment,
    show_jobs,
    jobs_fragment,
    show_job,
    job_fragment,
    proof_fragment,
    static,
]
