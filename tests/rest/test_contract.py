"""The OpenAPI document is the contract: complete, true, and kept."""

from __future__ import annotations

from typing import get_args

import msgspec

from ingress.rest.models import AnyJobRequest, JobRequest
from middleware.job.schema import JOB_TYPES, Job
from tests.rest.client import Client
from tests.rest.fuzz import fuzz

#: Set by the API, never by a caller.
DOOR_FIELDS = {"job_id", "source", "actor", "trust", "version"}
ROUTES = {
    "/health": {"get"},
    "/version": {"get"},
    "/metrics": {"get"},
    "/v1/jobs": {"get", "post"},
    "/v1/jobs/{job_id}": {"get"},
    "/v1/jobs/{job_id}/receipt": {"get"},
    "/v1/jobs/{job_id}/result": {"get"},
    "/v1/jobs/{job_id}/output": {"get"},
    "/v1/jobs/{job_id}/events": {"get"},
    "/v1/jobs/{job_id}/cancel": {"post"},
    "/v1/jobs/{job_id}/retry": {"post"},
    "/v1/jobs/{job_id}/approve": {"post"},
    "/v1/jobs/{job_id}/deny": {"post"},
    "/v1/events": {"get"},
    "/v1/files": {"post"},
    "/v1/hooks/{name}": {"post"},
    "/v1/types": {"get"},
    "/v1/types/{name}": {"get"},
}


def test_the_document_is_complete(call: Client) -> None:
    """Every route, every job type with its own payload, every problem; nothing is fetched from elsewhere."""
    answer = call("GET", "/schema/openapi.json")
    document = answer.json
    assert {path: set(found) for path, found in document["paths"].items()}.items() >= ROUTES.items()
    schemas = document["components"]["schemas"]
    tags = {
        schemas[kind["$ref"].rpartition("/")[2]]["properties"]["job_type"].get("enum", ["any other"])[0]
        for kind in document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]["oneOf"]
    }
    assert tags == {*JOB_TYPES, "any other"}
    assert schemas["ActorRequest"]["properties"]["payload"]["type"] == "object"
    for name in ("AskRequest", "ShellCmdRequest", "ShellCmdPayload", "Decision"):
        assert schemas[name]["additionalProperties"] is False
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"].keys() >= {"401", "403", "429", "503"}, path
            assert operation.get("security") == (
                [] if path in {"/health", "/version"} else operation.get("security")
            )
    assert b"http" not in answer.body.replace(b'"type":"http"', b"").replace(b"HTTP", b"").replace(
        b"bridge_http", b""
    )


def test_every_job_type_can_be_asked_for() -> None:
    """The requests are the job types, field by field, without the fields that the API sets."""
    assert {str(kind.__struct_config__.tag) for kind in get_args(AnyJobRequest)} == set(JOB_TYPES)
    asked = {field.name for field in msgspec.structs.fields(JobRequest)}
    there = {field.name for field in msgspec.structs.fields(Job)}
    assert asked - {"delay_s"} == there - DOOR_FIELDS


def test_schemathesis_finds_no_fault(environ: dict[str, str]) -> None:
    """All its checks, some hundred requests; ``python -m tests.rest.fuzz`` makes 5,000."""
    code, cases, report = fuzz({**environ, "BRIDGE_API_PORT": "0"}, examples=3, seed=1)
    assert code == 0, report[-8000:]
    assert cases > 200
