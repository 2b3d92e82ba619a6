"""Assemble the application: routes, error handlers, OpenAPI document and request filter.

To add API routes, write a module with ``ROUTES`` and list it in ``ROUTE_MODULES``. Another adapter served by
this process, such as the dashboard, is passed in as an extension by the command that starts the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from ingress.core.control import CancelReply
from ingress.core.http import problems
from ingress.core.http.app_state import AppState
from ingress.core.http.auth import Extension
from ingress.core.version import version
from ingress.rest import (
    events,
    files,
    health,
    hooks,
    job_actions,
    jobs,
    ledger_routes,
    listing,
    sse_frames,
    type_routes,
)
from ingress.rest.contract import Document, StrictRequest
from ingress.rest.models import (
    ActorRequest,
    AnyJobRequest,
    Decision,
    Health,
    JobResult,
    OutputPage,
    Upload,
    Version,
)
from ingress.rest.request_filter import RequestFilter
from middleware.job.records import JobPage, JobRecord, Receipt
from ops.errors import BridgeError
from ops.import_shim import without

ROUTE_MODULES = (health, jobs, listing, job_actions, events, files, hooks, ledger_routes, type_routes)
#: Structs of request and response bodies, for the OpenAPI document.
_TYPES: list[Any] = [
    ActorRequest,
    AnyJobRequest,
    CancelReply,
    Decision,
    Health,
    JobPage,
    JobRecord,
    JobResult,
    OutputPage,
    problems.Problem,
    Receipt,
    *ledger_routes.TYPES,
    *type_routes.TYPES,
    Upload,
    Version,
]


def build_app(
    app_state: AppState, extensions: Sequence[Callable[[AppState], Extension]] = ()
) -> RequestFilter:
    """Return the ASGI application.

    Args:
        app_state: Given to each handler that has a parameter ``app_state: AppStateDependency``.
        extensions: Make the other adapters that this process serves beside the API, such as the dashboard.
    """
    parts = [make_extension(app_state) for make_extension in extensions]
    routes = [route for module in ROUTE_MODULES for route in module.ROUTES]
    # Litestar imports pydantic where it is installed: a fifth of the start-up time, and we have no models.
    with without("pydantic"):
        app = Litestar(
            route_handlers=[*routes, *(route for part in parts for route in part.routes)],
            dependencies={"app_state": Provide(lambda: app_state, sync_to_thread=False)},
            request_class=StrictRequest,
            exception_handlers={
                problems.ApiProblem: problems.on_problem,
                BridgeError: problems.on_bridge_error,
                HTTPException: problems.on_http_exception,
                Exception: problems.on_anything,
            },
            request_max_body_size=app_state.rest.body_max_bytes,
            openapi_config=_document(),
            lifespan=[_lifespan(app_state)],
            logging_config=None,
        )
    return RequestFilter(app, app_state, parts)


def _lifespan(app_state: AppState) -> Any:
    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        app_state.start()
        try:
            yield
        finally:
            app_state.stop()

    return running


def _document() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="CMD.BRIDGE",
        version=version(),
        description="Submit jobs from any interface to one queue; workers run them; receipts prove it.",
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="A token made with `3ox token make`, with the scope view, submit or admin.",
                )
            }
        ),
        security=[{"bearer": []}],
        render_plugins=[
            Document(
                _TYPES,
                {**files.BODIES, **hooks.BODIES, **job_actions.BODIES, **jobs.BODIES},
                sse_frames.STREAM_SCHEMA,
            )
        ],
    )
