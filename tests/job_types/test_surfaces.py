"""Jobs of a user's types through schedules, webhooks, policy, dependencies, destinations, history, pages."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ingress.core.ledger_proofs import verify_receipt
from ingress.dispatch import Bridge
from middleware.archive.history import History
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from middleware.job.states import State
from tests.clock.conftest import running_clocks, runs_of
from tests.job_types.user_jobs import running_pools
from tests.rest.client import Answer, Client
from tests.rest.conftest import Api, running_api
from tests.rest.test_auth import assert_problem
from tests.support import bridge_environ, eventually, run_3ox
from tests.workers import sweep

SECRET = "a secret of these tests"
SETTINGS = f"""
kill_grace_s = 0.5

[deliver]
types = ["thumb*"]

[projects.gated]
path = "WORKDESK"
command = ["true"]

[[policy]]
job_type = "thumbnail"
project = "gated"
effect = "approve"

[[policy]]
source = "rest"
job_type = "ref*"
effect = "deny"

[[schedule]]
id = "thumbs"
every = "1s"
job = {{ job_type = "thumbnail", payload = {{ path = "scheduled.png" }}, priority = 2 }}

[[schedule]]
id = "mistaken"
every = "1s"
job = {{ job_type = "thumbnail", payload = {{ pth = "scheduled.png" }} }}

[[schedule]]
id = "unpublished"
every = "1s"
job = {{ job_type = "thumbnial", payload = {{ path = "scheduled.png" }} }}

[rest.endpoints.thumb]
job = "thumbnail"
secret = "{SECRET}"
payload = {{ path = "{{body.file}}", size = "{{body.size}}" }}

[rest.endpoints.unpublished]
job = "thumbnial"
secret = "{SECRET}"
"""


@pytest.fixture(scope="module")
def surfaces(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Bridge]]:
    """A bridge with API, scheduler, a worker of the built-in types and one of a user's."""
    environ = bridge_environ(tmp_path_factory.mktemp("surfaces"), valkey, SETTINGS)
    with contextlib.ExitStack() as running:
        running.callback(sweep, environ)
        api = running.enter_context(running_api(environ))
        # Before any worker has published its types: that is no error.
        running.enter_context(running_clocks(environ, api.bridge))
        yield api, running.enter_context(running_pools(environ))


@pytest.fixture
def api(surfaces: tuple[Api, Bridge]) -> Api:
    """The API."""
    return surfaces[0]


@pytest.fixture
def bridge(surfaces: tuple[Api, Bridge]) -> Bridge:
    """The bridge."""
    return surfaces[1]


@pytest.fixture
def call(api: Api) -> Client:
    """A client that may do everything."""
    return api.client()


def hook(api: Api, name: str, document: Any) -> Answer:
    """Send a signed webhook."""
    body = json.dumps(document).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Delivery": uuid.uuid4().hex,
        "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
    return api.client(None)("POST", f"/v1/hooks/{name}", body=body, headers=headers)


def submitted(call: Client, **fields: Any) -> str:
    """Submit a job and return its id."""
    sent = call("POST", "/v1/jobs", {"job_type": "thumbnail", "payload": {"path": "a.png"}, **fields})
    assert sent.status == 202, sent.body
    return str(sent.json["job_id"])


def ended(call: Client, job_id: str) -> dict[str, Any]:
    """Return a job when it has finished."""
    job: dict[str, Any] = call("GET", f"/v1/jobs/{job_id}?wait=20").json
    return job


def test_a_schedule(bridge: Bridge) -> None:
    """Its runs are jobs of the user's type, on its queue, with the schedule's priority."""

    def completed() -> list[JobRecord]:
        return [run for run in runs_of(bridge, "thumbs") if run.status == State.COMPLETED]

    run = eventually(completed, 20.0)[0]
    assert (run.job_type, run.payload, run.priority) == ("thumbnail", {"path": "scheduled.png"}, 2)
    assert bridge.reader.job(run.job_id).result == {"path": "scheduled.png", "size": 128}


def test_a_schedule_that_does_not_fit(api: Api, bridge: Bridge, call: Client) -> None:
    """A run with a mistaken argument or of an unknown type is refused and logged, and the page shows why."""

    def refused(name: str, reason: str) -> bool:
        lines = [json.loads(line) for line in api.log().splitlines() if "schedule.refused" in line]
        return any(line["schedule"] == name and reason in line["reason"] for line in lines)

    eventually(lambda: refused("mistaken", "Unknown argument 'pth'"), 20.0)
    eventually(lambda: refused("unpublished", "Did you mean 'thumbnail'?"), 20.0)
    logged = [json.loads(line) for line in api.log().splitlines() if "schedule.unknown_type" in line]
    assert [line["schedule"] for line in logged].count("unpublished") == 1
    assert runs_of(bridge, "mistaken") == runs_of(bridge, "unpublished") == []
    page = call("GET", "/").body.decode()
    assert "Unknown job type &#39;thumbnial&#39;. Did you mean &#39;thumbnail&#39;?" in page


def test_a_webhook(api: Api, call: Client) -> None:
    """The endpoint's job is one of the user's type, with values of the request."""
    taken = hook(api, "thumb", {"file": "hooked.png", "size": 64})
    assert taken.status == 202, taken.body
    request = ended(call, taken.json["job_id"])
    assert request["status"] == "completed", request
    job = ended(call, request["result"]["job_id"])
    assert (job["job_type"], job["source"], job["trust"]) == ("thumbnail", "webhook", "member")
    assert job["result"] == {"path": "hooked.png", "size": 64}


def test_a_webhook_that_does_not_fit(api: Api, call: Client) -> None:
    """An argument that does not fit fails the request with the reason; an unknown type is refused at once."""
    taken = hook(api, "thumb", {"file": "hooked.png", "size": "large"})
    request = ended(call, taken.json["job_id"])
    assert request["status"] == "failed"
    assert "'size'" in request["error"]["message"]
    problem = assert_problem(hook(api, "unpublished", {}), 409, "unknown-type")
    assert problem["field"] == "rest.endpoints.unpublished.job"
    assert "Did you mean 'thumbnail'?" in problem["remedy"]


def test_doctor_names_types_that_no_worker_has_published(api: Api) -> None:
    """One line for each schedule and endpoint: their jobs would be refused."""
    found = json.loads(run_3ox("doctor", "--json", environ=api.environ).stdout)
    checks = found["checks"] if isinstance(found, dict) else found
    noted = {check["name"]: check["verdict"] for check in checks if "thumbnial" in check["found"]}
    assert noted == {"schedule unpublished": "bad", "endpoint unpublished": "bad"}


def test_policy(call: Client) -> None:
    """A rule names a user's type or a pattern of it: denied at submission, or held for an approval."""
    assert_problem(call("POST", "/v1/jobs", {"job_type": "refuse", "payload": {}}), 403, "denied")
    job_id = submitted(call, project="gated")
    assert call("GET", f"/v1/jobs/{job_id}").json["status"] == "held"
    assert call("POST", f"/v1/jobs/{job_id}/approve", {}).status == 200
    assert ended(call, job_id)["status"] == "completed"


def test_dependencies(call: Client, bridge: Bridge) -> None:
    """A user's job waits for a built-in one, and the reverse; a failure cancels what depends on it."""
    beat = call("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}, "delay_s": 0.5}).json["job_id"]
    middle = submitted(call, depends_on=[beat])
    last = call("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}, "depends_on": [middle]}).json
    assert call("GET", f"/v1/jobs/{middle}").json["status"] in {"held", "completed"}
    jobs = [ended(call, job_id) for job_id in (beat, middle, last["job_id"])]
    assert [job["status"] for job in jobs] == ["completed"] * 3
    for before, after in itertools.pairwise(jobs):
        assert before["completed_at"] <= after["started_at"]
    # It fails after the other has been submitted: a job cannot depend on one that has failed.
    broken = bridge.submit(make_job("refuse", {}), delay_s=1.0).job_id
    assert ended(call, submitted(call, depends_on=[broken]))["status"] == "cancelled"
    assert ended(call, broken)["error"]["message"] == "no reason"


def test_the_result_is_delivered(call: Client, bridge: Bridge) -> None:
    """``[deliver] types`` with a pattern writes the results of a user's type to 0UT.3OX."""
    job_id = submitted(call)
    assert ended(call, job_id)["status"] == "completed"

    def delivered() -> bool:
        return [item.status for item in bridge.reader.job(job_id).deliveries] == ["completed"]

    eventually(delivered, 20.0)
    files = [file.name for file in bridge.loaded.workspace.outbox.rglob("*") if job_id in file.name]
    assert files


def test_history_and_ledger(call: Client, bridge: Bridge) -> None:
    """The job is archived as it was, and its receipt is proven by the ledger."""
    job_id = submitted(call)
    assert ended(call, job_id)["status"] == "completed"

    def archived() -> bool:
        with History(bridge.loaded.workspace.history_db) as history:
            return history.job(job_id) == bridge.reader.job(job_id)

    eventually(archived, 30.0)
    eventually(lambda: verify_receipt(bridge, job_id).ok, 30.0)
    found = call("GET", "/v1/jobs?type=thumbnail&all=true&search=a.png").json["jobs"]
    assert job_id in [job["job_id"] for job in found]


def test_the_dashboard(call: Client, bridge: Bridge) -> None:
    """The filter has all known types; the job's page has its title, payload and result."""
    job_id = submitted(call, payload={"path": "shown.png", "size": 32})
    assert ended(call, job_id)["status"] == "completed"
    page = call("GET", "/jobs?type=thumbnail").body.decode()
    for name in ("ask", "heartbeat", "refuse"):
        assert f"<option>{name}</option>" in page
    assert "<option selected>thumbnail</option>" in page
    assert f'href="/jobs/{job_id}"' in page
    shown = call("GET", f"/jobs/{job_id}").body.decode()
    assert "shown.png</h1>" in shown
    assert 'aria-label="Payload"' in shown
    assert 'aria-label="Result"' in shown
    bare = bridge.submit(make_job("tidy", {})).job_id
    assert "Remove old files.</h1>" in call("GET", f"/jobs/{bare}").body.decode()
    named = bridge.submit(make_job("refuse", {"why": "no disk"})).job_id
    assert "why=no disk</h1>" in call("GET", f"/jobs/{named}").body.decode()
