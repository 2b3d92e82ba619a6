"""Webhooks: signed, of this time, each delivery once; and the job that a request turns into."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from tests.rest.client import Answer, Client
from tests.rest.conftest import HOOK_SECRET, Api
from tests.rest.test_auth import assert_problem


def send(
    api: Api,
    document: Any,
    *,
    name: str = "beat",
    delivery: str | None = None,
    timestamp: int | None = None,
    secret: str = HOOK_SECRET,
    **headers: str,
) -> Answer:
    """Send a webhook as GitHub does."""
    body = json.dumps(document).encode()
    signed = body if timestamp is None else f"{timestamp}.".encode() + body
    sent = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": uuid.uuid4().hex if delivery is None else delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(),
        **({} if timestamp is None else {"X-Hub-Timestamp": str(timestamp)}),
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }
    return api.client(None)("POST", f"/v1/hooks/{name}", body=body, headers=sent)


def child_of(call: Client, place: str) -> dict[str, Any]:
    """Return the finished job of a request."""
    parent = call("GET", f"{place}?wait=20").json
    assert parent["status"] == "completed", parent
    child: dict[str, Any] = call("GET", f"/v1/jobs/{parent['result']['job_id']}?wait=20").json
    assert child["trace_id"] == parent["trace_id"]
    assert (child["source"], child["actor"], child["trust"]) == (
        parent["source"],
        parent["actor"],
        parent["trust"],
    )
    return child


def test_a_signed_webhook_becomes_the_job_of_its_endpoint(api: Api, call: Client) -> None:
    """202 with a receipt of source webhook; the job that it submits has the same trace."""
    ref = uuid.uuid4().hex
    taken = send(api, {"ref": ref})
    assert taken.status == 202, taken.body
    assert (taken.json["job_type"], taken.json["source"], taken.json["actor"]) == (
        "rest.request",
        "webhook",
        "webhook:beat",
    )
    child = child_of(call, taken.headers["location"])
    assert (child["job_type"], child["status"], child["result"]["nonce"]) == ("heartbeat", "completed", ref)
    parent = call("GET", taken.headers["location"]).json
    assert parent["payload"]["headers"]["x-github-event"] == "push"
    assert "x-hub-signature-256" not in parent["payload"]["headers"]


def test_wrongly_signed(api: Api) -> None:
    """401 without, with another secret, for an endpoint without a secret, for no endpoint at all."""
    wrong: list[dict[str, Any]] = [
        {"secret": "another secret"},
        {"X_Hub_Signature_256": "sha256=" + "0" * 64},
        {"X_Hub_Signature_256": "nonsense"},
        {"name": "plain", "secret": ""},
        {"name": "no-such-endpoint"},
        {"name": "no-such-endpoint", "secret": ""},
    ]
    answers = [send(api, {"ref": "x"}, **parts) for parts in wrong]
    problems = [assert_problem(answer, 401) for answer in answers]
    # Nobody learns from it which endpoints there are.
    assert len({(problem["type"], problem["detail"]) for problem in problems}) == 1


def test_a_delivery_is_taken_once(api: Api) -> None:
    """The same delivery again is answered with the same job; the same body under another id is a replay."""
    document = {"ref": uuid.uuid4().hex}
    first = send(api, document, delivery="d-" + document["ref"])
    again = send(api, document, delivery="d-" + document["ref"])
    assert (first.status, again.status) == (202, 200)
    assert again.json["job_id"] == first.json["job_id"]
    assert_problem(send(api, document, delivery="e-" + document["ref"]), 409, "replay")
    assert_problem(send(api, {"ref": "other " + document["ref"]}, delivery="d-" + document["ref"]), 409)
    # Without a delivery id the signature is one.
    unnamed = {"ref": uuid.uuid4().hex}
    assert [send(api, unnamed, delivery="").status for _ in range(2)] == [202, 200]


def test_the_timestamp_is_signed_and_of_this_time(api: Api) -> None:
    """Old or of tomorrow is refused, and none where the endpoint wants one; each makes another signature."""
    now = int(time.time())
    assert send(api, {"a": 1}, name="stamped", timestamp=now).status == 202
    assert send(api, {"a": 1}, name="stamped", timestamp=now - 100).status == 202
    for off in (-301, 301, -(10**9)):
        assert_problem(send(api, {"a": 1}, name="stamped", timestamp=now + off), 401)
    assert_problem(send(api, {"a": 1}, name="stamped"), 401)
    assert_problem(send(api, {"a": 1}, name="stamped", timestamp=now, X_Hub_Timestamp=str(now + 1)), 401)
    assert_problem(send(api, {"a": 1}, X_Hub_Timestamp="soon"), 401)


def test_a_body_that_is_none(api: Api) -> None:
    """Correctly signed but not JSON: reported only to a sender that knows the secret."""
    body = b"{"
    signature = "sha256=" + hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
    answer = api.client(None)("POST", "/v1/hooks/beat", body=body, headers=headers)
    assert assert_problem(answer, 400)["status"] == 400
    headers["Content-Type"] = "text/plain"
    answer = api.client(None)("POST", "/v1/hooks/beat", body=body, headers=headers)
    assert assert_problem(answer, 415)["status"] == 415


def request(call: Client, endpoint: str, **parts: Any) -> str:
    """Dispatch a rest.request with a token and give where it is."""
    body = {"job_type": "rest.request", "payload": {"endpoint": endpoint, **parts}}
    return call("POST", "/v1/jobs", body).headers["location"]


def test_parts_are_filled_in(call: Client) -> None:
    """From the query and from lists in the body, in the middle of a text."""
    place = request(call, "plain", query={"a": "left"}, body={"list": [0, {"right": True}]})
    assert child_of(call, place)["result"]["nonce"] == 'left and {"right":true}'


def test_a_command_only_as_the_endpoint_names_it(call: Client) -> None:
    """The endpoint names the command, the policy allows it; what comes in is one argument, whatever it is."""
    child = child_of(call, request(call, "run", body={"word": "$(id); echo x"}))
    assert child["status"] == "completed", child
    output = call("GET", f"/v1/jobs/{child['job_id']}/output").json["chunks"]
    assert "".join(chunk["text"] for chunk in output) == "$(id); echo x\n"


def test_requests_that_cannot_be_carried_out(call: Client) -> None:
    """No such endpoint, a part that is missing, an endless loop, a wrong type: failed at once, and why."""
    for place, said in (
        (request(call, "nowhere"), "Unknown endpoint 'nowhere'"),
        (request(call, "plain", query={"a": "x"}, body={"list": []}), "has no body.list.1"),
        (request(call, "loop"), "never end"),
        (request(call, "run", body={"word": 5}), "payload.argv"),
    ):
        job = call("GET", f"{place}?wait=20").json
        assert (job["status"], job["attempt"]) == ("failed", 1)
        assert said in job["error"]["message"]
        assert job["error"]["remedy"]


def test_no_secret_reaches_the_log(api: Api) -> None:
    """After all these tests 3ox.log has neither webhook secrets nor tokens."""
    log = api.log()
    assert HOOK_SECRET not in log
    assert "Bearer 3ox_" not in log
    for entry in api.tokens.entries():
        assert f"3ox_{entry.token_id}_" not in log
