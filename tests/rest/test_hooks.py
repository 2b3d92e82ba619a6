"""Webhooks: signed, of this time, each delivery once; and the job that a request turns into."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any
from urllib.parse import urlencode

from tests.rest.client import Answer, Client
from tests.rest.conftest import HOOK_SECRET, STANDARD_SECRET, Api, running_api
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
    for off in (-301, 360, -(10**9)):
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


def deliver(api: Api, name: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Send a webhook with exactly these bytes and headers."""
    return api.client(None)("POST", f"/v1/hooks/{name}", body=body, headers=headers)


def github(body: bytes, event: str = "push", media_type: str = "application/json") -> dict[str, str]:
    """Return the headers that GitHub sends."""
    return {
        "Content-Type": media_type,
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={hexdigest(body)}",
    }


def hexdigest(signed: bytes, secret: str = HOOK_SECRET) -> str:
    """Return the HMAC of a text in hexadecimal."""
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def ignored(answer: Answer) -> tuple[str, str]:
    """Assert that a webhook created no job; return its event and the reason."""
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "ignored"
    return answer.json["event"], answer.json["reason"]


def test_events_that_create_no_job(api: Api, call: Client) -> None:
    """GitHub's ping, events that the endpoint does not take, and a push that deletes a branch."""
    ping = json.dumps({"zen": "Keep it logically awesome.", "hook_id": 1}).encode()
    assert ignored(deliver(api, "pushes", ping, github(ping, "ping")))[0] == "ping"
    assert ignored(deliver(api, "beat", ping, github(ping, "ping")))[0] == "ping"
    issue = json.dumps({"action": "opened"}).encode()
    assert ignored(deliver(api, "pushes", issue, github(issue, "issues"))) == (
        "issues",
        "The endpoint takes the events push.",
    )
    deleted = json.dumps({"ref": "refs/heads/old", "deleted": True, "head_commit": None}).encode()
    assert ignored(deliver(api, "strict", deleted, github(deleted))) == (
        "push",
        "The request says null for body.head_commit.message, which has no default.",
    )
    # With a default it is a job; a part that is no part of such a request is a mistake in 3ox.toml.
    taken = deliver(api, "pushes", deleted, github(deleted))
    assert taken.status == 202, taken.body
    assert child_of(call, taken.headers["location"])["result"]["nonce"] == "refs/heads/old: nothing"
    wrong = json.dumps({"ref": "x"}).encode()
    job = call("GET", f"{deliver(api, 'strict', wrong, github(wrong)).headers['location']}?wait=20").json
    assert "has no body.head_commit.message" in job["error"]["message"]
    assert "{body.head_commit.message|text}" in job["error"]["remedy"]


def test_forms_and_byte_order_marks(api: Api, call: Client) -> None:
    """The signature covers the bytes as they came, the job gets the document in them."""
    form, bom = "application/x-www-form-urlencoded", b"\xef\xbb\xbf"
    nonce = uuid.uuid4().hex
    document = json.dumps({"ref": f"ä {nonce}"}).encode()
    for body, media_type in (
        (bom + document, "application/json; charset=utf-8"),
        (urlencode({"payload": document + b" "}).encode(), form),
        (urlencode({"ref": f"ä {nonce}", "other": "1"}).encode(), f"{form}; charset=utf-8"),
    ):
        taken = deliver(api, "beat", body, github(body, media_type=media_type))
        assert taken.status == 202, taken.body
        assert child_of(call, taken.headers["location"])["result"]["nonce"] == f"ä {nonce}"
    for body in (b"payload=%7B", b"payload=%FF", b"&".join([b"a=1"] * 1001)):
        assert_problem(deliver(api, "beat", body, github(body, media_type=form)), 400)
    assert_problem(deliver(api, "beat", b"a=1", {**github(b"a=2"), "Content-Type": form}), 401)


def test_each_kind_of_sender(api: Api, call: Client) -> None:
    """Gitea, GitLab, Stripe and Standard Webhooks: signature, event and delivery id where each puts them."""
    now = str(int(time.time()))
    body = json.dumps({"id": f"evt_{uuid.uuid4().hex}", "type": "push", "ref": uuid.uuid4().hex}).encode()
    other = json.dumps({"id": "evt_2", "type": "tag_push", "object_kind": "tag_push"}).encode()

    def standard(content: bytes, sent_at: str = now, version: str = "v1") -> dict[str, str]:
        signed = f"msg_1.{sent_at}.".encode() + content
        mac = hmac.new(
            base64.b64decode(STANDARD_SECRET.removeprefix("whsec_")), signed, hashlib.sha256
        ).digest()
        value = f"v1,{base64.b64encode(b'another').decode()} {version},{base64.b64encode(mac).decode()}"
        return {"webhook-id": "msg_1", "webhook-timestamp": sent_at, "webhook-signature": value}

    def stripe(content: bytes, sent_at: str = now) -> dict[str, str]:
        value = f"t={sent_at},v1={'0' * 64},v1={hexdigest(f'{sent_at}.'.encode() + content)},v0=1"
        return {"Stripe-Signature": value}

    def gitea(content: bytes, event: str = "push") -> dict[str, str]:
        names = {"X-Gitea-Event": event, "X-Gitea-Delivery": hexdigest(content)[:20]}
        return {"X-Gitea-Signature": hexdigest(content), **names}

    def gitlab(token: str, event: str) -> dict[str, str]:
        return {"X-Gitlab-Token": token, "X-Gitlab-Event": event, "Idempotency-Key": uuid.uuid4().hex}

    json_type = {"Content-Type": "application/json"}
    senders: dict[str, tuple[dict[str, str], list[dict[str, str]], dict[str, str]]] = {
        "gitea": (gitea(body), [gitea(other)], gitea(other, "create")),
        "gitlab": (
            gitlab(HOOK_SECRET, "Push Hook"),
            [gitlab("x", "Push Hook"), {}],
            gitlab(HOOK_SECRET, "Tag Push Hook"),
        ),
        "stripe": (stripe(body), [stripe(other), stripe(body, str(int(now) - 400)), {}], stripe(other)),
        "standard": (
            standard(body),
            [standard(other), standard(body, "1"), standard(body, version="v2"), {}],
            standard(other),
        ),
    }
    for name, (genuine, wrong, unwanted) in senders.items():
        for headers in wrong:
            assert_problem(deliver(api, name, body, json_type | headers), 401)
        _, reason = ignored(deliver(api, name, other, json_type | unwanted))
        assert reason == "The endpoint takes the events push."
        answers = [deliver(api, name, body, json_type | genuine) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 200], name
        assert answers[0].json["job_id"] == answers[1].json["job_id"]
        assert child_of(call, answers[0].headers["location"])["result"]["nonce"] == json.loads(body)["ref"]
    # Stripe makes a new signature for each attempt.
    again = deliver(api, "stripe", body, json_type | stripe(body, str(int(now) - 5)))
    assert again.status == 200


def test_a_delivery_that_was_refused_may_come_again(own_environ: dict[str, str]) -> None:
    """Refused because the queue was full: it is accepted when there is room, also with a new delivery id."""
    with running_api({**own_environ, "BRIDGE_QUEUE_MAX": "1"}) as api:
        call = api.client()
        filler = call("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}}).json["job_id"]
        documents = [{"ref": uuid.uuid4().hex} for _ in range(2)]
        for document in documents:
            assert send(api, document, delivery=f"d-{document['ref']}").status == 503
        call("POST", f"/v1/jobs/{filler}/cancel", {})
        first = send(api, documents[0], delivery=f"d-{documents[0]['ref']}")
        assert first.status == 202, first.body
        call("POST", f"/v1/jobs/{first.json['job_id']}/cancel", {})
        assert send(api, documents[1], delivery="another-id").status == 202
        assert_problem(send(api, documents[1], delivery="a-third-id"), 409, "replay")
        assert send(api, documents[1], delivery="another-id").status == 200


def test_no_secret_reaches_the_log(api: Api) -> None:
    """After all these tests 3ox.log has neither webhook secrets nor tokens."""
    log = api.log()
    assert HOOK_SECRET not in log
    assert "Bearer 3ox_" not in log
    for entry in api.tokens.entries():
        assert f"3ox_{entry.token_id}_" not in log
