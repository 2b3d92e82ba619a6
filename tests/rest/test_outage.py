"""The store is unavailable: jobs go to the spool, reads answer 503 with Retry-After, nothing is lost."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.job_types.user_jobs import running_pools
from tests.rest.client import Client
from tests.rest.conftest import SETTINGS, Api, running_api
from tests.rest.test_auth import assert_problem
from tests.rest.test_hooks import send
from tests.rest.test_jobs import beat, shell
from tests.support import RunningValkey, clean_environ, eventually, frozen
from tests.workers import running_worker, sweep


@contextlib.contextmanager
def running_store(home: Path) -> Iterator[RunningValkey]:
    """Run a store that may be killed, for a bridge with the settings of these tests."""
    workspace = Workspace(home)
    workspace.create()
    workspace.settings_file.write_text(SETTINGS)
    server = RunningValkey(load_settings(home, environ={}))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def environ_of(home: Path) -> dict[str, str]:
    """Return the environment of a process of that bridge."""
    return clean_environ({"BRIDGE_HOME": str(home), "BRIDGE_API_PORT": "0"})


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[RunningValkey]:
    """A store of the test's own."""
    with running_store(tmp_path / "home") as server:
        yield server


@pytest.fixture
def alone(empty_store: RunningValkey, tmp_path: Path) -> Iterator[Api]:
    """An API on that store."""
    assert empty_store.process is not None
    with running_api(environ_of(tmp_path / "home")) as api:
        yield api


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningValkey, Api]]:
    """A store and an API that the tests share."""
    home = tmp_path_factory.mktemp("outages") / "home"
    with running_store(home) as server:
        with running_api(environ_of(home)) as api:
            yield server, api
        sweep(environ_of(home))


@pytest.fixture
def own_store(outages: tuple[RunningValkey, Api]) -> RunningValkey:
    """The shared store, running; to be killed."""
    server, _ = outages
    if server.process is None:
        server.start()
    return server


@pytest.fixture
def lonely(outages: tuple[RunningValkey, Api], own_store: RunningValkey) -> Api:
    """The shared API, ready, with nothing in its spool."""
    _, api = outages
    assert own_store.process is not None
    call = api.client()

    def is_ready() -> bool:
        health = call("GET", "/health").json
        return bool(health["ready"]) and health["spool"] == 0

    eventually(is_ready, 20.0)
    return api


def test_spooled_and_handed_over(alone: Api, empty_store: RunningValkey) -> None:
    """Each answer in the meantime says so; one key is one job throughout; afterwards all are there."""
    call = alone.client()
    before = call("POST", "/v1/jobs", beat("before"), headers={"Idempotency-Key": "before"})
    empty_store.kill()

    first = call("POST", "/v1/jobs", beat("a"), headers={"Idempotency-Key": "k"})
    assert (first.status, first.json["status"]) == (202, "spooled")
    again = call("POST", "/v1/jobs", beat("a"), headers={"Idempotency-Key": "k"})
    assert (again.status, again.json["job_id"]) == (200, first.json["job_id"])
    assert_problem(call("POST", "/v1/jobs", beat("b"), headers={"Idempotency-Key": "k"}), 409)
    known = call("POST", "/v1/jobs", beat("before"), headers={"Idempotency-Key": "before"})
    assert (known.status, known.json["job_id"]) == (200, before.json["job_id"])
    others = [call("POST", "/v1/jobs", beat(str(number))).json for number in range(20)]
    assert {receipt["status"] for receipt in others} == {"spooled"}

    place = f"/v1/jobs/{first.json['job_id']}"
    kept = call("GET", place)
    assert (kept.status, kept.json["status"]) == (200, "spooled")
    assert kept.json["reason"].startswith("in the spool since 20")
    assert "waiting for the store" in kept.json["reason"]
    assert call("GET", f"/v1/jobs/{first.json['job_id'][-9:]}").json == kept.json
    assert call("GET", f"{place}/receipt").json["status"] == "spooled"
    assert call("GET", f"{place}/output").json == {
        "job_id": first.json["job_id"],
        "chunks": [],
        "next": None,
        "final": False,
    }
    assert "spooled and has no result: in the spool" in call("GET", f"{place}/result").json["detail"]
    assert call("GET", f"{place}?wait=0.3").json["status"] == "spooled"
    for path in ("/v1/jobs", f"/v1/jobs/{before.json['job_id']}", "/v1/jobs/abc/receipt"):
        away = call("GET", path)
        assert_problem(away, 503, "store-away")
        assert int(away.headers["retry-after"]) >= 1
    assert_problem(call("POST", f"{place}/cancel"), 503, "spooled")
    health = call("GET", "/health")
    assert (health.status, health.json["live"], health.json["ready"]) == (200, True, False)
    assert health.json["spool"] == 21
    assert "bridge_spool_jobs 21.0" in call("GET", "/metrics").body.decode()

    # Killed and started again with the spool full: what it answered holds.
    alone.kill()
    alone.start()
    call = alone.client()
    again = call("POST", "/v1/jobs", beat("a"), headers={"Idempotency-Key": "k"})
    assert (again.status, again.json["job_id"]) == (200, first.json["job_id"])

    empty_store.start()
    wanted = [first.json["job_id"], *(receipt["job_id"] for receipt in others)]
    eventually(lambda: call("GET", "/health").json["spool"] == 0, 20.0)
    page = call("GET", "/v1/jobs?limit=100").json
    assert [job["job_id"] for job in page["jobs"]][::-1] == [before.json["job_id"], *wanted]
    late = call("POST", "/v1/jobs", beat("a"), headers={"Idempotency-Key": "k"})
    assert (late.status, late.json["job_id"]) == (200, first.json["job_id"])


def test_a_job_on_its_way_out_of_the_spool(lonely: Api, own_store: RunningValkey) -> None:
    """The job is found at every moment, in the spool or in the store."""
    call = lonely.client()
    own_store.kill()
    jobs = [call("POST", "/v1/jobs", beat(str(number))).json["job_id"] for number in range(30)]
    own_store.start()
    last = f"/v1/jobs/{jobs[-1]}"
    seen: list[tuple[int, str]] = []

    def ask() -> bool:
        found = call("GET", last)
        seen.append((found.status, found.json["status"]))
        return seen[-1] == (200, "queued")

    eventually(ask, 20.0)
    assert set(seen) <= {(200, "spooled"), (200, "queued")}


def test_a_wait_goes_on_from_the_spool(lonely: Api, own_store: RunningValkey) -> None:
    """Whoever waits for a job that is spooled has its end when the store is back."""
    call = lonely.client()
    own_store.kill()
    place = call("POST", "/v1/jobs", beat()).headers["location"]
    ends: list[str] = []
    waiter = threading.Thread(target=lambda: ends.append(call("GET", f"{place}?wait=20").json["status"]))
    waiter.start()
    own_store.start()
    eventually(lambda: call("POST", f"{place}/cancel").status == 200, 20.0)
    waiter.join(25.0)
    assert ends == ["cancelled"]


def test_reads_of_a_store_that_stands_still_do_not_wait_long(lonely: Api, own_store: RunningValkey) -> None:
    """A second for the first, nothing for those right after it; whatever is sent goes on."""
    call = lonely.client()
    job_id = call("POST", "/v1/jobs", beat()).json["job_id"]
    reads = ("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/receipt", f"/v1/jobs/{job_id}/output")
    more = (f"/v1/jobs/{job_id}/events", f"/v1/jobs/{job_id}/seals", "/v1/jobs?all=true", "/v1/jobs/abc")
    with frozen(own_store.pid):
        for path in (*reads, *more):
            began_s = time.monotonic()
            assert_problem(call("GET", path), 503, "store-away")
            assert time.monotonic() - began_s < 3.0, path
        began_s = time.monotonic()
        answers = [call("GET", path).status for path in (*reads, *more)]
        assert answers == [503] * 8
        assert time.monotonic() - began_s < 8 * 1.0 * 0.7, "known to be silent, it is not asked each time"
        assert "bridge_store_up 0.0" in call("GET", "/metrics").body.decode()
    eventually(lambda: call("GET", f"/v1/jobs/{job_id}").status == 200, 5.0)


def test_a_stream_outlives_the_store(lonely: Api, own_store: RunningValkey) -> None:
    """It stays open, and has the events after the store is back."""
    call = lonely.client()
    place = call("POST", "/v1/jobs", beat(delay_s=600)).headers["location"]
    stream = call.stream(f"{place}/events", timeout_s=60)
    assert "scheduled" in next(stream)["data"]
    own_store.kill()
    eventually(lambda: call("GET", "/v1/jobs").status == 503)
    own_store.start()
    eventually(lambda: call("POST", f"{place}/cancel").status == 200, 20.0)
    assert "cancelled" in next(stream)["data"]


def test_a_stream_goes_on_from_the_spool(lonely: Api, own_store: RunningValkey) -> None:
    """It has the state spooled, then the events of the store; also when it is resumed."""
    call = lonely.client()
    own_store.kill()
    place = call("POST", "/v1/jobs", beat(delay_s=600)).headers["location"]
    stream = call.stream(f"{place}/events?output=true", timeout_s=60)
    first = next(stream)
    data = json.loads(first["data"])
    assert (first["event"], data["status"]) == ("state", "spooled")
    assert "waiting for the store" in data["message"]
    assert first["id"] == "0-0~0-0"
    own_store.start()
    assert json.loads(next(stream)["data"])["status"] == "scheduled"
    again = call.stream(f"{place}/events", headers={"Last-Event-ID": "0-0"}, timeout_s=60)
    assert json.loads(next(again)["data"])["status"] == "scheduled", "and no 'reset' before it"
    assert call("POST", f"{place}/cancel").status == 200
    assert [json.loads(event["data"])["status"] for event in stream] == ["cancelled"]
    assert [json.loads(event["data"])["status"] for event in again] == ["cancelled"]


def test_a_stream_of_a_job_that_is_refused_at_the_hand_over(lonely: Api, own_store: RunningValkey) -> None:
    """No event says so; the stream ends with the refusal all the same, and who comes back has had it all."""
    call = lonely.client()
    own_store.kill()
    place = call("POST", "/v1/jobs", beat(depends_on=["01m80ebxp4nhqap3sz8m"])).headers["location"]
    stream = call.stream(f"{place}/events", timeout_s=60)
    assert json.loads(next(stream)["data"])["status"] == "spooled"
    own_store.start()
    last = next(stream)
    assert json.loads(last["data"])["status"] == "failed"
    assert "01m80ebxp4nhqap3sz8m, which is unknown" in json.loads(last["data"])["message"]
    assert list(stream) == []
    assert call("GET", f"{place}/events", headers={"Last-Event-ID": last["id"]}).status == 204


def test_the_dashboard_shows_a_spooled_job(lonely: Api, own_store: RunningValkey) -> None:
    """Its page and its fragment say that in the spool and why, with nothing to press or to prove."""
    call = lonely.client()
    before = call("POST", "/v1/jobs", beat("before", delay_s=600)).json["job_id"]
    own_store.kill()
    job_id = call("POST", "/v1/jobs", beat("shown", depends_on=[before])).json["job_id"]
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id[-9:]}?verify=1", f"/ui/jobs/{job_id}"):
        shown = call("GET", path)
        page = shown.body.decode()
        assert shown.status == 200, page
        assert '<span class="state s-spooled">' in page
        assert "in the spool since 20" in page
        assert "waiting for the store" in page
        assert f"<code>{before}</code>" in page
        assert "not known while the store is unavailable" in page
    proof = call("GET", f"/ui/jobs/{job_id}/proof")
    assert proof.status == 200
    assert "the ledger starts when the store accepts the job" in proof.body.decode()
    assert call("GET", f"/jobs/{before}").status == 503
    heard = call.stream(f"/ui/events?job={job_id}", timeout_s=60)
    assert next(heard)["event"] == "change"
    own_store.start()
    assert next(item["event"] for item in heard if item["event"] != "tick") == "change"
    eventually(lambda: "s-held" in call("GET", f"/ui/jobs/{job_id}").body.decode(), 20.0)
    assert call("GET", "/jobs/01m80ebxp4nhqap3sz8m").status == 404


def test_a_job_for_a_store_that_stands_still_is_taken_within_a_second(
    alone: Api, empty_store: RunningValkey
) -> None:
    """The first try is given up, and carried out when the store goes on: it is one job with the spool's."""
    call, ran = alone.client(), alone.loaded.workspace.home / "ran"
    keyed = {"Idempotency-Key": "once"}
    before = call("POST", "/v1/jobs", beat(delay_s=600)).json["job_id"]
    with frozen(empty_store.pid):
        began_s = time.monotonic()
        first = call("POST", "/v1/jobs", shell(f"echo first >> {ran}"), headers=keyed)
        assert time.monotonic() - began_s < 3.0
        assert (first.status, first.json["status"]) == (202, "spooled")
        began_s = time.monotonic()
        assert call("POST", "/v1/jobs", shell(f"echo second >> {ran}")).json["status"] == "spooled"
        assert time.monotonic() - began_s < 0.9, "known to be silent, it is not asked"
        # Nobody hands over while we look what the first try alone has done.
        alone.kill()
    job_id = first.json["job_id"]
    eventually(lambda: alone.bridge.reader.status_of(job_id) == "queued")
    assert alone.bridge.spooled() == 2
    assert [job.job_id for job in alone.bridge.reader.page().jobs] == [job_id, before]

    alone.start()
    call = alone.client()
    eventually(lambda: alone.bridge.spooled() == 0, 20.0)
    with running_worker(alone.bridge, alone.environ):
        eventually(lambda: call("GET", "/v1/jobs").json["summary"]["completed"] == 2, 20.0)
        page = call("GET", "/v1/jobs").json
        again = call("POST", "/v1/jobs", shell(f"echo first >> {ran}"), headers=keyed)
    assert (again.status, again.json["job_id"]) == (200, job_id)
    assert len(page["jobs"]) == 3
    moves = [move["status"] for move in call("GET", f"/v1/jobs/{job_id}/receipt").json["transitions"]]
    assert moves == ["queued", "processing", "completed"]
    assert sorted(ran.read_text().split()) == ["first", "second"]


def test_what_was_cut_short_is_one_job_however_both_ways_meet(lonely: Api, own_store: RunningValkey) -> None:
    """Many at once, webhooks among them; each is carried out once when the store goes on by itself."""
    call, ran = lonely.client(), lonely.loaded.workspace.home / "ran"
    aside = lonely.loaded.workspace.spool_dir / "refused"
    refused = sorted(aside.glob("*"))
    with running_worker(lonely.bridge, lonely.environ), ThreadPoolExecutor(12) as hands:
        call("POST", "/v1/jobs", beat())
        with frozen(own_store.pid):
            began_s = time.monotonic()
            posts = [
                hands.submit(call, "POST", "/v1/jobs", shell(f"echo {number} >> {ran}"))
                for number in range(10)
            ]
            hooked = hands.submit(send, lonely, {"ref": "frozen"}, delivery="d-frozen")
            jobs = [post.result().json for post in posts]
            hook = hooked.result().json
            assert time.monotonic() - began_s < 4.0
        assert {job["status"] for job in [*jobs, hook]} == {"spooled"}
        eventually(lambda: call("GET", "/health").json["spool"] == 0, 20.0)
        eventually(lambda: call("GET", "/v1/jobs").status == 200)
        for job in [*jobs, hook]:
            ended = call("GET", f"/v1/jobs/{job['job_id']}?wait=20").json
            assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert sorted(ran.read_text().split(), key=int) == [str(number) for number in range(10)]
    assert sorted(aside.glob("*")) == refused


def test_jobs_of_a_users_type_are_spooled(empty_store: RunningValkey, tmp_path: Path) -> None:
    """The API knows the types that were published before: arguments are checked, the job runs later."""
    environ = environ_of(tmp_path / "home")
    try:
        with running_pools(environ), running_api(environ) as api:
            call = api.client()
            empty_store.kill()
            body = {"job_type": "thumbnail", "payload": {"path": "a.png"}}
            sent = call("POST", "/v1/jobs", body)
            assert (sent.status, sent.json["status"]) == (202, "spooled"), sent.body
            wrong = call("POST", "/v1/jobs", {**body, "payload": {"pth": "a.png"}})
            assert assert_problem(wrong, 409)["field"] == "payload.pth"
            empty_store.start()
            job = eventually(lambda: _completed(call, sent.json["job_id"]), 30.0)
            assert job["result"] == {"path": "a.png", "size": 128}
    finally:
        sweep(environ)


def _completed(call: Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = call("GET", f"/v1/jobs/{job_id}").json
    return job if job.get("status") == "completed" else {}
