"""Server-sent events: live, resumed, bounded, and ended in order."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from tests.rest.client import Client
from tests.rest.conftest import Api, running_api
from tests.rest.test_auth import assert_problem
from tests.rest.test_jobs import beat, shell
from tests.support import eventually


def states(events: list[dict[str, str]]) -> list[str]:
    """Return the states in the events."""
    return [json.loads(event["data"])["status"] for event in events if event["event"] == "state"]


def test_a_job_is_followed_to_its_end(call: Client) -> None:
    """The state at once, then every change with its progress, and the stream ends with the job."""
    script = "for n in 1 2 3; do sleep 0.1; done"
    place = call("POST", "/v1/jobs", shell(script, delay_s=0.5)).headers["location"]
    events = list(call.stream(f"{place}/events"))
    received = states(events)
    assert received[0] == "scheduled"
    assert received[-1] == "completed"
    assert "processing" in received
    ids = [event["id"] for event in events]
    assert ids == sorted(ids, key=lambda item: tuple(map(int, item.split("-"))))
    assert states(list(call.stream(f"{place}/events"))) == ["completed"]


def test_resumed_where_it_broke_off(call: Client) -> None:
    """With Last-Event-ID later events are sent, once; after the end the answer is 204."""
    place = call("POST", "/v1/jobs", beat(delay_s=0.3)).headers["location"]
    events = list(call.stream(f"{place}/events"))
    for at, event in enumerate(events[:-1]):
        rest = list(call.stream(f"{place}/events", headers={"Last-Event-ID": event["id"]}))
        assert states(rest) == states(events[at + 1 :])
    gone = call("GET", f"{place}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert (gone.status, gone.body) == (204, b"")


def test_output_is_received_as_it_is_written_and_resumed(call: Client) -> None:
    """Each chunk once and in order, before the final state; a new connection resumes after the last one."""
    script = "for n in 1 2 3 4; do echo line $n; sleep 0.15; done"
    place = call("POST", "/v1/jobs", shell(script)).headers["location"]
    events = list(call.stream(f"{place}/events?output=true"))
    assert events[-1]["event"] == "state"
    assert states(events)[-1] == "completed"
    lines = "".join(f"line {n}\n" for n in (1, 2, 3, 4))
    assert written(events) == lines
    assert len([event for event in events if event["event"] == "output"]) > 1
    assert written(list(call.stream(f"{place}/events?output=true"))) == lines
    for at, event in enumerate(events[:-1]):
        headers = {"Last-Event-ID": event["id"]}
        rest = list(call.stream(f"{place}/events?output=true", headers=headers))
        assert written(events[: at + 1]) + written(rest) == lines
    assert written(list(call.stream(f"{place}/events"))) == ""


def written(events: list[dict[str, str]]) -> str:
    """Return the output in the events."""
    return "".join(json.loads(event["data"])["text"] for event in events if event["event"] == "output")


def test_an_event_that_is_not_known(call: Client) -> None:
    """A client that asks for events that no longer exist gets a reset."""
    place = call("POST", "/v1/jobs", beat()).headers["location"]
    assert call("GET", f"{place}?wait=20").json["status"] == "completed"
    for last in ("0-1", "nonsense"):
        events = list(call.stream(f"{place}/events", headers={"Last-Event-ID": last}))
        assert events[0]["event"] == "reset"
        assert states(events)[-1] == "completed"


def test_everything_that_happens(call: Client) -> None:
    """The stream of all jobs has jobs submitted after it was opened, and resumes without a gap."""
    received: list[dict[str, Any]] = []
    ids: list[str] = []
    opened = threading.Event()

    def listen() -> None:
        for event in call.stream("/v1/events"):
            opened.set()
            received.append(json.loads(event["data"]))
            ids.append(event.get("id", ""))
            if received[-1]["status"] == "completed" and received[-1]["job_id"] == wanted[-1]:
                return

    wanted = [""]
    listening = threading.Thread(target=listen)
    listening.start()
    # Before the stream is open, events of further jobs may be missing.
    eventually(lambda: call("POST", "/v1/jobs", beat()) and opened.wait(0.05))
    wanted += [call("POST", "/v1/jobs", beat()).json["job_id"] for _ in range(5)]
    listening.join(20.0)
    assert not listening.is_alive()
    for job_id in wanted[1:]:
        own = [event["status"] for event in received if event["job_id"] == job_id]
        assert own == ["queued", "processing", "completed"] or job_id != wanted[-1]
    # Of events that share an id, the last one has it: a client resumes after all of them.
    middle = next(at for at in range(len(ids) // 2, len(ids)) if ids[at])
    again: list[str] = []
    for event in call.stream("/v1/events", headers={"Last-Event-ID": ids[middle]}):
        again.append(event.get("id", ""))
        if again[-1] == ids[-1]:
            break
    assert again == ids[middle + 1 :]


def open_stream(call: Client, path: str) -> http.client.HTTPConnection:
    """Open a stream and leave it open."""
    place = urlsplit(call.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {call.token}"})
    return connection


def test_no_more_streams_than_allowed(api: Api) -> None:
    """Beyond streams_max there is 429; a client that disconnects frees its slot."""
    call = api.client("view")
    admin = api.client()
    place = admin("POST", "/v1/jobs", beat(delay_s=300)).headers["location"]
    held = [open_stream(call, "/v1/events") for _ in range(6)]
    assert all(connection.getresponse().status == 200 for connection in held)
    assert_problem(call("GET", "/v1/events"), 429, "too-many-streams")
    assert_problem(call("GET", f"{place}/events"), 429)
    assert_problem(call("GET", f"{place}?wait=5"), 429)
    assert call("GET", "/v1/jobs").status == 200
    for connection in held:
        connection.close()

    def free() -> bool:
        stream = open_stream(call, "/v1/events")
        status = stream.getresponse().status
        stream.close()
        return status == 200

    eventually(free)
    assert admin("POST", f"{place}/cancel").status == 200


def test_stopped_with_open_streams(own_environ: dict[str, str]) -> None:
    """SIGTERM ends streams and waits in order, at once, and the process with exit code 0."""
    with running_api(own_environ) as api:
        call = api.client()
        place = call("POST", "/v1/jobs", beat(delay_s=300)).headers["location"]
        streams = [open_stream(call, "/v1/events"), open_stream(call, f"{place}/events")]
        responses = [stream.getresponse() for stream in streams]
        waiting = open_stream(call, f"{place}?wait=30")
        eventually(lambda: b"bridge_http_streams 3.0" in call("GET", "/metrics").body)
        began_s = time.monotonic()
        assert api.stop() == 0
        assert time.monotonic() - began_s < 4
        assert b"event: state" in responses[1].read()
        assert json.loads(waiting.getresponse().read())["status"] == "scheduled"
        assert "rest.fault" not in api.log()
