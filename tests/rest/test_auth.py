"""Who may do what: tokens, scopes, hosts, origins; on every route there is."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from ingress.core.daemon import Daemon
from ingress.core.http.app_state import AppState
from ingress.dashboard.extension import extension, is_open
from ingress.rest.app import build_app
from ops.settings.load import LoadedSettings
from ops.tokens import Tokens
from tests.rest.client import Answer, Client
from tests.rest.conftest import Api
from tests.support import eventually, run_3ox

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
OPEN = {("GET", "/health"), ("GET", "/version")}


def assert_problem(answer: Answer, status: int, kind: str = "") -> dict[str, Any]:
    """See that a problem document says what happened and what to do."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem.get("remedy"), problem
    assert problem["type"].startswith("urn:3ox:")
    assert kind in problem["type"]
    return problem


def routes(loaded: LoadedSettings) -> list[tuple[str, str, str | None]]:
    """Walk the application's own table: method, path, scope that its guard wants."""
    gate = build_app(AppState(Daemon("rest", loaded)), [extension])
    app = gate.app
    assert isinstance(app, Litestar)
    found = []
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        path = re.sub(r"\{[^}]*\}", "01m80ebxp4nhqap3sz8m", route.path_format)
        for method, (handler, _) in route.route_handler_map.items():
            if method == "OPTIONS":
                continue
            guards = handler.guards or ()
            scopes = [getattr(guard, "scope", None) for guard in guards]
            found.append((str(method), path, next((scope for scope in scopes if scope), None)))
    return found


def test_without_a_token_every_route_and_method_is_closed(api: Api, loaded: LoadedSettings) -> None:
    """401 for every route and method, including unknown ones, before anything else is checked."""
    anybody = api.client(None)
    paths = {path for _, path, _ in routes(loaded)} | {"/nowhere", "/v1", "/v1/jobs/x/y/z"}
    assert len(paths) > 15
    for path in sorted(paths):
        for method in METHODS:
            if path in {"/health", "/version"} or is_open("GET" if method == "HEAD" else method, path):
                continue
            answer = anybody(method, path)
            assert answer.status == 401, (method, path, answer)
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_every_route_has_a_scope(loaded: LoadedSettings) -> None:
    """A route that forgets its guard would be open to every token."""
    free = {(method, path) for method, path, scope in routes(loaded) if scope is None}
    assert free - OPEN <= {
        ("POST", "/v1/hooks/01m80ebxp4nhqap3sz8m"),
        ("GET", "/schema"),
        ("GET", "/schema/openapi.json"),
    } | {item for item in free if not item[1].startswith(("/v1", "/metrics"))}


def test_outside_its_scope_a_token_is_refused(api: Api, loaded: LoadedSettings) -> None:
    """A token of each scope is refused wherever more is wanted, and nowhere else."""
    order = ["view", "submit", "admin"]
    for scope in ("view", "submit"):
        client = api.client(scope)
        for method, path, wanted in routes(loaded):
            if wanted is None or path.endswith("/events"):
                continue
            answer = client(method, path)
            if order.index(wanted) > order.index(scope):
                problem = assert_problem(answer, 403, "scope")
                assert wanted in problem["remedy"]
            else:
                assert answer.status != 403, (scope, method, path, answer)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer 3ox_00000000_" + "a" * 43,
        "Basic YTpi",
        "bearer " + "x" * 5000,
        "Bearer \xff",
    ],
)
def test_what_is_no_token(api: Api, header: str) -> None:
    """Nothing that only looks like a token lets anybody in."""
    answer = api.client(None)("GET", "/v1/jobs", headers={"Authorization": header})
    assert assert_problem(answer, 401, "unauthorized")["status"] == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_token_ends_at_once(api: Api) -> None:
    """Made, used, revoked, refused, by the command line's own commands; the file holds no token."""
    made = json.loads(
        run_3ox("token", "make", "short-lived", "--scope", "view", "--json", environ=api.environ).stdout
    )
    client = Client(api.url, made["token"])
    assert client("GET", "/v1/jobs").status == 200
    kept = (api.loaded.workspace.keys_dir / "tokens.json").read_text()
    assert made["token"] not in kept
    assert made["token"].split("_", 2)[2] not in kept
    listed = json.loads(run_3ox("token", "list", "--json", environ=api.environ).stdout)["tokens"]
    assert "short-lived" in {entry["name"] for entry in listed}
    revoked = run_3ox("token", "revoke", "short-lived", "--json", environ=api.environ)
    assert json.loads(revoked.stdout)["revoked"]["name"] == "short-lived"
    assert client("GET", "/v1/jobs").status == 401


def test_a_revoked_token_ends_under_load(api: Api) -> None:
    """Eight clients use it all the time: within a second all are refused for good, an open stream ends."""
    name = "busy"
    token = api.tokens.make(name, "submit")
    received: list[dict[str, str]] = []
    stopped = threading.Event()
    last_ok_s = [0.0] * 8
    refused_s = [0.0] * 8

    def hammer(number: int) -> None:
        client = Client(api.url, token)
        while not stopped.is_set():
            asked_s = time.monotonic()
            status = client("GET", "/v1/jobs?limit=1").status
            assert status in {200, 401, 429}
            if status == 200:
                last_ok_s[number] = asked_s
            elif status == 401 and not refused_s[number]:
                refused_s[number] = asked_s

    def listen() -> None:
        received.extend(Client(api.url, token).stream("/v1/events", timeout_s=60.0))

    listener = threading.Thread(target=listen)
    listener.start()
    admin = api.client("admin")
    with ThreadPoolExecutor(8) as pool:
        try:
            busy = [pool.submit(hammer, number) for number in range(8)]
            eventually(lambda: all(last_ok_s))
            assert admin("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}}).status == 202
            eventually(lambda: received)
            Tokens(api.loaded.workspace).revoke(name)
            revoked_s = time.monotonic()
            eventually(lambda: all(refused_s))
            assert admin("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}}).status == 202
            listener.join(10.0)
            assert not listener.is_alive(), "the stream goes on"
        finally:
            stopped.set()
    assert [item.exception() for item in busy] == [None] * 8
    assert max(last_ok_s) - revoked_s < 1.0
    assert max(refused_s) - revoked_s < 1.0


def test_the_token_of_the_setting(own_environ: dict[str, str]) -> None:
    """BRIDGE_API_TOKEN is an admin's, and no other is made."""
    from tests.rest.conftest import running_api

    with running_api({**own_environ, "BRIDGE_API_TOKEN": "a-token-of-my-own"}) as api:
        assert Client(api.url, "a-token-of-my-own")("GET", "/v1/jobs").status == 200
        assert Client(api.url, "a-token-of-my-owN")("GET", "/v1/jobs").status == 401
        assert api.tokens.entries() == []
        assert "a-token-of-my-own" not in api.log()


def test_the_first_token_is_shown_once(own_environ: dict[str, str]) -> None:
    """Without any token one is made and printed; the next start prints none, and the log never has it."""
    from tests.rest.conftest import running_api

    with running_api(own_environ) as api:
        found = re.search(r"3ox_[0-9a-f]{8}_[\w-]{43}", api.output.read_text())
        assert found is not None
        assert Client(api.url, found[0])("POST", "/v1/jobs/x/approve").status == 404
        assert api.stop() == 0
        api.output.unlink()
        api.start()
        assert api.output.read_text() == ""
        assert Client(api.url, found[0])("GET", "/v1/jobs").status == 200
        assert found[0] not in api.log()


@pytest.mark.parametrize("method", METHODS)
def test_a_foreign_host_or_origin_is_refused(api: Api, call: Client, method: str) -> None:
    """On every method, with a token too: a page elsewhere must not reach in through a browser."""
    assert call(method, "/v1/jobs", headers={"Host": "evil.example"}).status == 421
    assert call(method, "/v1/jobs", headers={"Host": "evil.example:7777"}).status == 421
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        assert call(method, "/v1/jobs", headers={"Origin": origin}).status == 403
    assert api.client(None)("GET", "/health", headers={"Host": "evil.example"}).status == 421


def test_our_own_host_and_origin_pass(call: Client) -> None:
    """Localhost by its names, the page's own origin, and what 3ox.toml allows."""
    port = call.url.rstrip("/").rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert call("GET", "/v1/jobs", headers={"Host": host, "Origin": f"http://{host}"}).status == 200
    assert call("GET", "/v1/jobs", headers={"Origin": "https://good.example"}).status == 200


def test_health_and_version_are_open(api: Api) -> None:
    """Both answer without a token, and reveal liveness, readiness and version only."""
    anybody = api.client(None)
    health = anybody("GET", "/health").json
    assert (health["status"], health["live"], health["ready"], health["store"]) == ("ok", True, True, "ok")
    assert anybody("GET", "/version").json["version"]
    assert "default-src 'none'" in anybody("GET", "/health").headers["content-security-policy"]


def test_too_many_requests(own_environ: dict[str, str]) -> None:
    """Beyond the burst a token gets 429 with Retry-After; other tokens are not affected."""
    from pathlib import Path

    from tests.rest.conftest import running_api

    settings = Path(own_environ["BRIDGE_HOME"]) / "3ox.toml"
    settings.write_text("[rest]\nrate_per_s = 0.5\nburst = 3\n")
    with running_api(own_environ) as api:
        client = api.client("view")
        statuses = [client("GET", "/v1/jobs").status for _ in range(3)]
        assert statuses == [200, 200, 200]
        refused = client("GET", "/v1/jobs")
        assert_problem(refused, 429, "too-many-requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert api.client("view")("GET", "/v1/jobs").status == 200
