"""Routes for job types: the built-in ones and those that workers have published."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import get
from litestar.concurrency import sync_to_thread
from litestar.params import Parameter
from msgspec import Struct

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.http.problems import ApiProblem
from ingress.core.type_info import TypeInfo, all_types, find_type
from ingress.rest.contract import problems
from ops.errors import InvalidJob


class TypeList(Struct, frozen=True, kw_only=True):
    """The job types: the built-in ones, then those of actors by name."""

    types: list[TypeInfo]


#: Structs of the responses, for the OpenAPI document.
TYPES: list[Any] = [TypeInfo, TypeList]


@get(
    "/v1/types",
    operation_id="listTypes",
    summary="All job types",
    description="The built-in job types and those that workers have published, each with the JSON Schema of"
    " its payload. A type is listed until 30 days after the last worker that carried it.",
    guards=[requires("view")],
    responses=problems(),
)
async def list_types(app_state: AppStateDependency) -> TypeList:
    """Return all job types."""
    return TypeList(types=await sync_to_thread(all_types, app_state.read_bridge))


@get(
    "/v1/types/{name:str}",
    operation_id="getType",
    summary="One job type",
    guards=[requires("view")],
    responses=problems(404),
)
async def get_type(
    app_state: AppStateDependency, name: Annotated[str, Parameter(description="Name of the job type.")]
) -> TypeInfo:
    """Return a job type."""
    return await sync_to_thread(_find, app_state, name)


def _find(app_state: AppState, name: str) -> TypeInfo:
    try:
        return find_type(app_state.read_bridge, name)
    except InvalidJob as error:
        raise ApiProblem(404, "unknown-type", error.message, remedy=error.remedy, field="name") from error


ROUTES: list[Any] = [list_types, get_type]
