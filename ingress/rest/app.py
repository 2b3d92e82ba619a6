"""Puts the application together: routes, errors, the OpenAPI document, and the gate before all of it.

To add routes: a module with ``ROUTES``, named in ``ROUTE_MODULES``. What is not the API, pages with a session
of their own for instance, comes as an ``Extension`` from ``extensions``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from ingress.cli.main import version
from ingress.dashboard.extension import extension
from ingress.dispatch import CancelReply
from ingress.rest import events, files, health, hooks, jobs, problems, sse_frames, token_routes
from ingress.rest.app_state import Door
from ingress.rest.auth import Extension
from ingress.rest.contract import Document, StrictRequest
from ingress.rest.models import AnyJobRequest, Decision, Health, JobResult, OutputPage, Upload, Version
from ingress.rest.request_filter import Gate
from middleware.job.records import JobPage, JobRecord, Receipt
from ops.errors import BridgeError

ROUTE_MODULES = (health, jobs, events, files, hooks, token_routes)
#: Everything of ours that a route takes or gives.
_TYPES: list[Any] = [
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
    *token_routes.TYPES,
    Upload,
    Version,
]


def extensions(door: Door) -> list[Extension]:
    """Give the parts of this door that are not the API.

    The dashboard plugs in here: its routes, which of its paths anybody may ask for, and how its session
    cookie tells who asks.

    Args:
        door: What its routes may use; handlers get it by a parameter ``door: OpenDoor``.
    """
    return [extension(door)]


def build_app(door: Door) -> Gate:
    """Make the application of a door."""
    parts = extensions(door)
    routes = [route for module in ROUTE_MODULES for route in module.ROUTES]
    app = Litestar(
        route_handlers=[*routes, *(route for part in parts for route in part.routes)],
        dependencies={"door": Provide(lambda: door, sync_to_thread=False)},
        request_class=StrictRequest,
        exception_handlers={
            problems.ApiProblem: problems.on_problem,
            BridgeError: problems.on_bridge_error,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_anything,
        },
        request_max_body_size=door.rest.body_max_bytes,
        openapi_config=_document(),
        lifespan=[_lifespan(door)],
        logging_config=None,
    )
    return Gate(app, door, parts)


def _lifespan(door: Door) -> Any:
    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        door.start()
        try:
            yield
        finally:
            door.stop()

    return running


def _document() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="CMD.BRIDGE",
        version=version(),
        description="One bridge between every way you command a machine and the workers that carry it out.",
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="A token of `3ox token make`, with the scope view, submit or admin.",
                )
            }
        ),
        security=[{"bearer": []}],
        render_plugins=[
            Document(_TYPES, {**files.BODIES, **hooks.BODIES, **jobs.BODIES}, sse_frames.STREAM_SCHEMA)
        ],
    )
