"""Jobs of a user's types over REST: submitted, refused with the field, listed, described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from middleware.job.schema import JOB_TYPES, make_job
from tests.job_types.user_jobs import running_pools
from tests.rest.client import Client
from tests.rest.conftest import Api, running_api
from tests.rest.test_auth import assert_problem
from tests.support import bridge_environ
from tests.workers import sweep

SETTINGS = """
[projects.demo]
path = "WORKDESK"
command = ["true"]

[types.thumbnail]
backoff_min_s = 0.5

[[policy]]
source = "rest"
job_type = "refuse"
effect = "deny"
"""


@pytest.fixture(scope="module")
def types_api(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API whose bridge has a worker of a user's actors."""
    environ = bridge_environ(tmp_path_factory.mktemp("types"), valkey, SETTINGS)
    with running_api(environ) as api, running_pools(environ):
        yield api
    sweep(environ)


@pytest.fixture
def submit(types_api: Api) -> Client:
    """A client that may submit."""
    return types_api.client("submit")


def thumbnail(**payload: Any) -> dict[str, Any]:
    """Return the body of a request for a thumbnail."""
    return {"job_type": "thumbnail", "payload": payload}


def test_a_job_of_a_users_type(submit: Client) -> None:
    """202 with a receipt; the job runs on its queue with the limits of its actor, and has its result."""
    sent = submit("POST", "/v1/jobs", {**thumbnail(path="a.png"), "priority": 2, "project": "demo"})
    assert sent.status == 202, sent.body
    assert (sent.json["job_type"], sent.json["source"], sent.json["trust"]) == ("thumbnail", "rest", "member")
    job = submit("GET", f"{sent.headers['location']}?wait=20").json
    assert (job["status"], job["priority"], job["project"]) == ("completed", 2, "demo")
    assert (job["timeout_seconds"], job["max_retries"]) == (60.0, 3)
    assert job["payload"] == {"path": "a.png"}
    assert job["result"] == {"path": "a.png", "size": 128}
    receipt = submit("GET", f"{sent.headers['location']}/receipt").json
    assert [line["status"] for line in receipt["transitions"]] == ["queued", "processing", "completed"]


def test_a_key_is_per_job(submit: Client) -> None:
    """A repeated Idempotency-Key is answered with the first job; with other arguments it is refused."""
    key = {"Idempotency-Key": "a-thumbnail"}
    first = submit("POST", "/v1/jobs", thumbnail(path="a.png"), headers=key)
    again = submit("POST", "/v1/jobs", thumbnail(path="a.png"), headers=key)
    assert (first.status, again.status) == (202, 200)
    assert first.json["job_id"] == again.json["job_id"]
    assert_problem(submit("POST", "/v1/jobs", thumbnail(path="b.png"), headers=key), 409, "idempotency-key")


@pytest.mark.parametrize(
    ("body", "status", "field", "named"),
    [
        ({"job_type": "thumbnial", "payload": {}}, 409, "job_type", "'thumbnail'"),
        (thumbnail(), 409, "payload.path", "'path'"),
        (thumbnail(pth="a.png"), 409, "payload.pth", "'path'"),
        (thumbnail(path="a.png", size="large"), 409, "payload.size", "'size'"),
        (thumbnail(path=5), 409, "payload.path", "'path'"),
        ({"job_type": "thumbnail", "payload": "a.png"}, 400, "payload", "object"),
        ({**thumbnail(path="a.png"), "priority": 11}, 400, "priority", "10"),
        ({**thumbnail(path="a.png"), "trust": "operator"}, 400, "trust", "trust"),
        ({"job_type": "refuse", "payload": {}}, 403, "", "policy"),
    ],
)
def test_what_is_refused(submit: Client, body: Any, status: int, field: str, named: str) -> None:
    """The problem names the field, and the name that was probably meant."""
    problem = assert_problem(submit("POST", "/v1/jobs", body), status)
    assert problem.get("field", "") == field
    assert named in f"{problem['detail']} {problem['remedy']}"


def test_the_types(types_api: Api) -> None:
    """The built-in types, then those of actors; each with what a client needs to submit a job of it."""
    view = types_api.client("view")
    types = view("GET", "/v1/types").json["types"]
    assert [item["name"] for item in types] == [*JOB_TYPES, "refuse", "thumbnail", "tidy"]
    found = view("GET", "/v1/types/thumbnail").json
    assert found == types[-2]
    assert (found["origin"], found["queue"], found["summary"]) == (
        "my_jobs",
        "media",
        "Scale an image down.",
    )
    assert found["defaults"]["timeout_s"] == 60.0
    assert found["defaults"]["max_retries"] == 3
    assert found["defaults"]["backoff_min_s"] == 0.5
    assert found["parameters"] == ["path", "size"]
    assert found["schema"]["properties"]["size"]["type"] == "integer"
    assert found["schema"]["required"] == ["path"]
    ask = view("GET", "/v1/types/ask").json
    assert (ask["origin"], ask["queue"]) == ("built-in", "llm")
    assert "prompt" in ask["parameters"]
    assert view("POST", "/v1/jobs", thumbnail(path="a.png")).status == 403
    assert types_api.client(None)("GET", "/v1/types").status == 401


def test_an_unknown_type_is_not_found(types_api: Api) -> None:
    """404 with the nearest name; also for a type that only the bridge uses."""
    view = types_api.client("view")
    problem = assert_problem(view("GET", "/v1/types/thumbnial"), 404, "unknown-type")
    assert "Did you mean 'thumbnail'?" in problem["remedy"]
    assert_problem(view("GET", "/v1/types/deliver"), 404, "unknown-type")


def test_jobs_of_a_type(submit: Client) -> None:
    """The list filters by any known type, with and without the history; an unknown one is named."""
    sent = submit("POST", "/v1/jobs", thumbnail(path="listed.png")).json
    for place in ("/v1/jobs?type=thumbnail", "/v1/jobs?type=thumbnail&all=true"):
        page = submit("GET", place).json
        assert sent["job_id"] in [job["job_id"] for job in page["jobs"]]
        assert {job["job_type"] for job in page["jobs"]} == {"thumbnail"}
    assert submit("GET", "/v1/jobs?type=refuse").json["jobs"] == []
    for place in ("/v1/jobs?type=thumbnial", "/v1/jobs?type=thumbnial&all=true"):
        problem = assert_problem(submit("GET", place), 409, "no-such-list")
        assert problem["field"] == "type"
        assert "Did you mean 'thumbnail'?" in problem["remedy"]


def test_act_on_a_job_of_a_users_type(submit: Client) -> None:
    """A scheduled job is cancelled and retried like any other."""
    sent = submit("POST", "/v1/jobs", {**thumbnail(path="later.png"), "delay_s": 3600})
    place = sent.headers["location"]
    assert submit("POST", f"{place}/cancel", {}).status in {200, 202}
    assert submit("GET", place).json["status"] == "cancelled"
    assert submit("POST", f"{place}/retry", {}).status == 202
    assert submit("GET", f"{place}?wait=20").json["status"] == "completed"


def test_retry_an_operators_job_of_a_users_type(types_api: Api, submit: Client) -> None:
    """The scope submit is enough, as for any type that runs no programs."""
    job_id = types_api.bridge.submit(make_job("refuse", {})).job_id
    job = submit("GET", f"/v1/jobs/{job_id}?wait=20").json
    assert (job["status"], job["trust"]) == ("failed", "operator")
    assert submit("POST", f"/v1/jobs/{job_id}/retry", {}).status == 202
