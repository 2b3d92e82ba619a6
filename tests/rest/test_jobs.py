"""Jobs over REST: submit, list, wait, act; errors."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest

from middleware.job.schema import make_job
from tests.rest.client import Client
from tests.rest.conftest import Api
from tests.rest.test_auth import assert_problem
from tests.support import eventually


def key() -> dict[str, str]:
    """Return a new idempotency key, as a header."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def beat(nonce: str = "n", **fields: Any) -> dict[str, Any]:
    """Return the body of a harmless job."""
    return {"job_type": "heartbeat", "payload": {"nonce": nonce}, **fields}


def shell(script: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a command that the policy of these tests allows."""
    return {"job_type": "shell.cmd", "payload": {"argv": ["sh", "-c", script]}, **fields}


def test_a_job_from_receipt_to_result(call: Client) -> None:
    """202, Location, receipt; then its end by a long poll, its parts each by its own route."""
    taken = call("POST", "/v1/jobs", beat("hello", metadata={"why": "test"}, trace_id="t-1"))
    assert taken.status == 202
    receipt = taken.json
    assert taken.headers["location"] == f"/v1/jobs/{receipt['job_id']}"
    assert (receipt["source"], receipt["trust"], receipt["trace_id"]) == ("rest", "member", "t-1")
    assert receipt["actor"].startswith("admin-")

    job = call("GET", taken.headers["location"] + "?wait=20").json
    assert (job["status"], job["result"]["nonce"]) == ("completed", "hello")
    assert job["metadata"] == {"why": "test"}
    assert call("GET", taken.headers["location"] + "/result").json["result"] == job["result"]
    ended = call("GET", taken.headers["location"] + "/receipt").json
    assert (ended["status"], ended["source"]) == ("completed", "rest")
    assert ended["result_sha256"]
    tail = receipt["job_id"][-12:]
    assert call("GET", f"/v1/jobs/{tail}").json["job_id"] == receipt["job_id"]


def test_the_same_key_is_the_same_job(call: Client) -> None:
    """200 with the first receipt; another payload under the key is a conflict."""
    with_key = key()
    first = call("POST", "/v1/jobs", beat("a"), headers=with_key)
    again = call("POST", "/v1/jobs", beat("a"), headers=with_key)
    assert (first.status, again.status) == (202, 200)
    assert again.json["job_id"] == first.json["job_id"]
    assert again.headers["location"] == first.headers["location"]
    assert again.json["duplicate"] is True
    in_body = call("POST", "/v1/jobs", beat("a", idempotency_key=with_key["Idempotency-Key"]))
    assert (in_body.status, in_body.json["job_id"]) == (200, first.json["job_id"])
    problem = assert_problem(call("POST", "/v1/jobs", beat("b"), headers=with_key), 409, "idempotency-key")
    assert first.json["job_id"] in problem["detail"]
    assert_problem(call("POST", "/v1/jobs", beat("a", idempotency_key="x"), headers=key()), 409)


def test_many_at_once_with_one_key(call: Client) -> None:
    """However many ask at the same time, there is one job, and one 202."""
    with_key, answers = key(), []

    def ask() -> None:
        answers.append(call("POST", "/v1/jobs", beat("once"), headers=with_key))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert sorted(answer.status for answer in answers) == [200] * 11 + [202]
    assert len({answer.json["job_id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"job_type": "nothing", "payload": {}}, 409, "job_type"),
        ({"job_type": "deliver", "payload": {}}, 400, "job_type"),
        ({"job_type": "no/name", "payload": {}}, 400, "job_type"),
        ({"job_type": "nothing", "payload": []}, 400, "payload"),
        ({"payload": {}}, 400, "job_type"),
        ({"job_type": "ask", "payload": {}}, 400, "payload.prompt"),
        ({"job_type": "ask", "payload": {"prompt": 5}}, 400, "payload.prompt"),
        (beat(priority="5"), 400, "priority"),
        (beat(priority=11), 400, "priority"),
        (beat(trust="operator"), 400, "trust"),
        (beat(source="cli"), 400, "source"),
        (beat(job_id="0" * 20), 400, "job_id"),
        ({"job_type": "task.custom", "payload": {"task": "x"}}, 400, "project"),
        (beat(resources={"gpu": 1}), 409, "resources"),
        (beat(depends_on=["0" * 20]), 409, "depends_on"),
        ([], 400, ""),
        ("text", 400, ""),
    ],
)
def test_what_is_wrong_is_said(call: Client, body: Any, status: int, field: str) -> None:
    """The problem names the field; 400 for what no bridge could take, 409 for what this one cannot."""
    problem = assert_problem(call("POST", "/v1/jobs", body), status)
    assert problem.get("field", "") == field


def test_bodies_that_are_none(call: Client) -> None:
    """No body, no JSON, no UTF-8, another type, too much."""
    kind = {"Content-Type": "application/json"}
    text = {"Content-Type": "text/plain"}
    assert_problem(call("POST", "/v1/jobs", body=b"", headers=kind), 400)
    assert_problem(call("POST", "/v1/jobs", body=b"{", headers=kind), 400)
    marked = b'\xef\xbb\xbf{"job_type": "heartbeat"}'
    assert call("POST", "/v1/jobs", body=marked, headers=kind).status == 202
    assert_problem(call("POST", "/v1/jobs", body=b'{"job_type":"\xff"}', headers=kind), 400)
    assert_problem(call("POST", "/v1/jobs", body=b"{}", headers=text), 415)
    huge = assert_problem(call("POST", "/v1/jobs", body=b" " * 3_000_000, headers=kind), 413)
    assert huge["detail"] == "The body is too large."
    large = {"job_type": "ask", "payload": {"prompt": "x" * 1_100_000}}
    problem = assert_problem(call("POST", "/v1/jobs", large), 413, "payload-too-large")
    assert problem["status"] == 413


def test_whole_numbers_may_have_a_point(call: Client) -> None:
    """JSON makes no difference between 3 and 3.0."""
    taken = call("POST", "/v1/jobs", beat(priority=3.0))
    assert taken.status == 202
    assert call("GET", taken.headers["location"]).json["priority"] == 3


def test_the_policy_is_asked(call: Client) -> None:
    """A command is denied unless a rule allows it; a task waits for approval, or is denied by hand."""
    denied = call("POST", "/v1/jobs", {"job_type": "shell.cmd", "payload": {"argv": ["ls"]}})
    assert "policy" in assert_problem(denied, 403, "denied")["remedy"]
    task = {"job_type": "task.custom", "project": "demo", "payload": {"task": "x"}}
    held = call("POST", "/v1/jobs", task)
    assert (held.status, held.json["status"]) == (202, "held")
    place = held.headers["location"]
    assert call("GET", place).json["priority"] == 2
    approved = call("POST", f"{place}/approve", {"reason": "looks fine"})
    assert approved.status == 200, approved.body
    assert call("GET", f"{place}?wait=20").json["status"] == "completed"
    other = call("POST", "/v1/jobs", task).headers["location"]
    assert call("POST", f"{other}/deny").status == 200
    assert call("GET", other).json["status"] == "cancelled"
    assert "rest:admin-" in call("GET", other).json["reason"]


def test_cancel_retry_and_output(call: Client) -> None:
    """A running job is cancelled, run again by hand; its output comes in pages."""
    taken = call("POST", "/v1/jobs", shell("for n in 1 2 3; do echo $n; sleep 0.1; done; sleep 60"))
    place = taken.headers["location"]
    eventually(lambda: len(call("GET", f"{place}/output").json["chunks"]) >= 2)
    page = call("GET", f"{place}/output?limit=1").json
    assert (page["chunks"][0]["text"][:1], page["final"]) == ("1", False)
    rest = call("GET", f"{place}/output?after={page['next']}").json
    assert rest["chunks"][0]["text"][:1] == "2"
    assert_problem(call("GET", f"{place}/result"), 409, "no-result")
    assert_problem(call("POST", f"{place}/retry"), 409, "wrong-state")

    assert call("POST", f"{place}/cancel", {"reason": "enough"}).json["outcome"] == "cancelling"
    ended = call("GET", f"{place}?wait=20").json
    assert ended["status"] == "cancelled"
    assert "enough" in ended["reason"]
    assert call("GET", f"{place}/output").json["final"] is True
    assert call("POST", f"{place}/cancel").json["outcome"] == "finished"
    assert call("POST", f"{place}/retry").status == 202
    assert call("POST", f"{place}/cancel").status == 200


def test_a_retry_gives_no_more_than_a_dispatch(api: Api, call: Client) -> None:
    """What a login commanded, and what was approved once, a token runs again with the scope admin only."""
    command = make_job("shell.cmd", {"argv": ["false"]}, source="cli", max_retries=0)
    api.bridge.submit(command)
    task = {"job_type": "task.custom", "project": "demo", "payload": {"task": "x"}, "delay_s": 600}
    approved = call("POST", "/v1/jobs", task).json["job_id"]
    assert call("POST", f"/v1/jobs/{approved}/approve").status == 200
    assert call("POST", f"/v1/jobs/{approved}/cancel").status == 200
    plain = call("POST", "/v1/jobs", beat(delay_s=600)).json["job_id"]
    assert call("POST", f"/v1/jobs/{plain}/cancel").status == 200
    assert call("GET", f"/v1/jobs/{command.job_id}?wait=20").json["status"] == "failed"
    member = api.client("submit")
    for job_id, why in ((command.job_id, "shell.cmd job from cli"), (approved, "approved")):
        refused = member("POST", f"/v1/jobs/{job_id}/retry")
        assert why in assert_problem(refused, 403, "scope")["detail"]
        assert call("POST", f"/v1/jobs/{job_id}/retry").status == 202
    assert member("POST", f"/v1/jobs/{plain}/retry").status == 202


def test_a_body_nested_too_deep_is_refused(call: Client) -> None:
    """Before the store sees it, whose own reader would give up in the middle of a transition."""
    for depth in (300, 5000):
        body = b'{"job_type":"rest.request","payload":{"endpoint":"plain","body":%b}}'
        kind = {"Content-Type": "application/json"}
        answer = call("POST", "/v1/jobs", body=body % (b"[" * depth + b"]" * depth), headers=kind)
        assert assert_problem(answer, 413, "payload-too-large")["status"] == 413


def test_a_wait_that_runs_out(call: Client) -> None:
    """The job as it is then, soon after; a wait for its end returns at once when it has ended."""
    place = call("POST", "/v1/jobs", beat(delay_s=600)).headers["location"]
    began_s = time.monotonic()
    assert call("GET", f"{place}?wait=0.3").json["status"] == "scheduled"
    assert 0.3 <= time.monotonic() - began_s < 5
    for bad in ("nan", "inf", "-1", "x", "null"):
        assert_problem(call("GET", f"{place}?wait={bad}"), 400)
    assert call("POST", f"{place}/cancel").json["outcome"] == "cancelled"
    assert call("GET", f"{place}?wait=20").json["status"] == "cancelled"


def test_pages(call: Client) -> None:
    """Every job once, newest first, by cursor; filters apply, and unknown filters are refused."""
    mine = [
        call("POST", "/v1/jobs", beat(delay_s=900 + number, project="pages")).json["job_id"]
        for number in range(5)
    ]
    seen: list[str] = []
    cursor = ""
    while True:
        page = call("GET", f"/v1/jobs?project=pages&limit=2{cursor}").json
        seen += [job["job_id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == mine[::-1]
    by_state = call("GET", "/v1/jobs?status=scheduled&type=heartbeat&limit=1").json
    assert by_state["summary"]["scheduled"] >= 5
    assert call("GET", f"/v1/jobs?status=scheduled&limit=1&cursor={by_state['next']}").status == 200
    assert_problem(call("GET", f"/v1/jobs?limit=1&cursor={by_state['next']}"), 409, "cursor")
    for bad in ("limit=0", "limit=1001", "limit=x", "status=x", "type=", "cursor=x", "status=null"):
        assert_problem(call("GET", f"/v1/jobs?{bad}"), 400)


def test_no_such_job(call: Client) -> None:
    """404 on each of its routes, also for what can be no id."""
    for part in ("00000000000000000000", "nosuchjob", "%00", "..%2f..", "x" * 300):
        reads = [
            ("GET", f"/v1/jobs/{part}{rest}") for rest in ("", "/receipt", "/result", "/output", "/events")
        ]
        acts = [("POST", f"/v1/jobs/{part}/{act}") for act in ("cancel", "retry", "approve", "deny")]
        problems = [assert_problem(call(method, path), 404) for method, path in (*reads, *acts)]
        assert [problem["status"] for problem in problems] == [404] * 9


def test_the_wrong_method_is_told_the_right_ones(call: Client) -> None:
    """405 with Allow; OPTIONS names them all."""
    refused = call("DELETE", "/v1/jobs")
    assert_problem(refused, 405)
    assert {word.strip() for word in refused.headers["allow"].split(",")} == {
        "GET",
        "HEAD",
        "POST",
        "OPTIONS",
    }
    assert call("OPTIONS", "/v1/jobs").headers["allow"] == refused.headers["allow"]


def test_head_is_a_get_without_its_body(api: Api, call: Client) -> None:
    """Where GET answers, HEAD does: same status, same headers, no body; elsewhere it is refused."""
    job_id = call("POST", "/v1/jobs", beat()).json["job_id"]
    for path in ("/health", "/version", "/v1/jobs", f"/v1/jobs/{job_id}", "/v1/jobs/zzzz", "/metrics", "/"):
        got, head = call("GET", path), call("HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        assert int(head.headers["content-length"]) > 0
        assert head.headers["x-content-type-options"] == "nosniff"
    anybody = api.client(None)
    assert anybody("HEAD", "/health").status == 200
    assert anybody("HEAD", "/v1/jobs").status == 401
    refused = call("HEAD", f"/v1/jobs/{job_id}/cancel")
    assert (refused.status, refused.headers["allow"], refused.body) == (405, "POST, OPTIONS", b"")


def test_head_of_a_stream_ends(api: Api, call: Client) -> None:
    """The headers of a stream, and no stream: nothing of it stays open."""
    for _ in range(api.loaded.settings.rest.streams_max + 2):
        head = call("HEAD", "/v1/events", timeout_s=5.0)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
    eventually(lambda: "bridge_http_streams 0.0" in call("GET", "/metrics").body.decode())


def test_a_parameter_is_named_as_in_the_url(call: Client) -> None:
    """An error in a query has the name of the parameter as sent."""
    for query, field in (("type=", "type"), ("all=perhaps", "all"), ("limit=0", "limit")):
        problem = assert_problem(call("GET", f"/v1/jobs?{query}"), 400)
        assert problem["field"] == field
        assert f"{field!r}" in problem["detail"]
    sent = call("POST", "/v1/jobs", beat(), headers={"Idempotency-Key": "k" * 300})
    assert assert_problem(sent, 400)["field"] == "Idempotency-Key"


def test_the_charset_is_said_once(call: Client) -> None:
    """No content type bears it twice; strict scrapers of metrics refuse that."""
    kind = call("GET", "/metrics").headers["content-type"]
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    for path in ("/sign-in", "/ui/static/dashboard.css", "/ui/static/dashboard.js"):
        assert call("GET", path).headers["content-type"].count("charset") == 1


def test_metrics(api: Api, call: Client) -> None:
    """What ended is counted by type, source and state, and how long it waited and ran."""
    place = call("POST", "/v1/jobs", beat()).headers["location"]
    assert call("GET", f"{place}?wait=20").json["status"] == "completed"
    # The store omits the source of this one, because it is the default.
    assert api.bridge.submit(make_job("heartbeat", {})).status == "queued"

    def counted() -> bool:
        text = call("GET", "/metrics").body.decode()
        return (
            'bridge_jobs_ended_total{source="rest",state="completed",type="heartbeat"}' in text
            and 'bridge_jobs_ended_total{source="python",state="completed",type="heartbeat"}' in text
            and 'source="unknown"' not in text
            and 'bridge_job_wait_seconds_bucket{le="0.005",source="rest",type="heartbeat"}' in text
            and 'bridge_job_run_seconds_count{source="rest",type="heartbeat"}' in text
        )

    eventually(counted)
    text = api.client("view")("GET", "/metrics").body.decode()
    depth = 'bridge_queue_depth{queue="ready"}'
    for name in ("bridge_store_up 1.0", "bridge_workers 1.0", depth, "bridge_spool_jobs 0.0"):
        assert name in text


def test_a_job_that_is_polled_is_never_stale(call: Client) -> None:
    """Answered from memory while it does not change; each change is in the next answer."""
    job_id = call("POST", "/v1/jobs", {"job_type": "heartbeat", "delay_s": 600}).json["job_id"]
    path = f"/v1/jobs/{job_id}"
    assert {call("GET", path).json["status"] for _ in range(5)} == {"scheduled"}
    assert call("GET", path).body == call("GET", f"{path}?wait=0").body
    assert call("POST", f"{path}/cancel").json["outcome"] == "cancelled"
    assert call("GET", path).json["status"] == "cancelled"
    assert call("POST", f"{path}/retry").status == 202
    assert call("GET", path).json["status"] != "cancelled"
