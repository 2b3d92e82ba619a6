"""Routes for operation: health, version, metrics."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.version import version
from ingress.rest.contract import problems
from ingress.rest.models import Health, Version
from middleware.job.base import SCHEMA_VERSION
from ops.errors import BridgeError

#: The framework appends the charset.
_METRICS_TYPE = "text/plain; version=0.0.4"


@get(
    "/health",
    operation_id="health",
    summary="Liveness and readiness",
    description="200 while this process serves requests; `ready` is true if the store answers.",
    responses=problems(),
)
async def health(app_state: AppStateDependency) -> Health:
    """Return the health; needs no token and reveals no secret."""
    return await sync_to_thread(_check, app_state)


def _check(app_state: AppState) -> Health:
    try:
        app_state.probe.call("PING")
        ready = True
    except BridgeError:
        ready = False
    return Health(
        status="ok" if ready else "degraded",
        live=True,
        ready=ready,
        store="ok" if ready else "away",
        spool=app_state.bridge.spooled(),
    )


@get("/version", operation_id="version", summary="Version", responses=problems())
async def show_version() -> Version:
    """Return the version."""
    return Version(name="cmd-bridge", version=version(), schema_version=SCHEMA_VERSION)


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    guards=[requires("view")],
    media_type="text/plain",
    responses={
        200: ResponseSpec(str, generate_examples=False, description="Metrics.", media_type="text/plain"),
        **problems(),
    },
)
async def metrics(app_state: AppStateDependency) -> Response[bytes]:
    """Return the metrics."""
    return Response(await sync_to_thread(app_state.metrics.render), media_type=_METRICS_TYPE)


ROUTES: list[Any] = [health, show_version, metrics]
