"""Bridges for these tests: one with worker and API that all share, and parts for those that break things."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from ops.tokens import Tokens
from tests.rest.client import Client
from tests.support import bridge_environ, eventually, threeox
from tests.workers import running_worker, sweep

HOOK_SECRET = "open-sesame-please"
STANDARD_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
SENDERS = "".join(
    f"""
[rest.endpoints.{preset}]
job = "heartbeat"
preset = "{preset}"
secret = "{STANDARD_SECRET if preset == "standard" else HOOK_SECRET}"
events = ["push"]
payload = {{ nonce = "{{body.ref}}" }}
"""
    for preset in ("gitea", "gitlab", "stripe", "standard")
)
SETTINGS = f"""
kill_grace_s = 0.5
progress_interval_s = 0.02

[projects.demo]
path = "WORKDESK"
command = ["{sys.executable}", "-c", "print('done')", "{{task}}"]
priority = 2

[types."ask"]
max_retries = 0

[[policy]]
source = "rest"
job_type = "shell.cmd"
command = "sh *"
effect = "allow"

[[policy]]
source = "rest"
job_type = "task.custom"
effect = "approve"

[rest]
streams_max = 6
upload_max_bytes = 3000000
allowed_origins = ["https://good.example"]
shutdown_s = 5

[rest.endpoints.beat]
job = "heartbeat"
secret = "{HOOK_SECRET}"
payload = {{ nonce = "{{body.ref}}" }}

[rest.endpoints.stamped]
job = "heartbeat"
secret = "{HOOK_SECRET}"
require_timestamp = true
payload = {{ nonce = "fixed" }}

[rest.endpoints.pushes]
job = "heartbeat"
secret = "{HOOK_SECRET}"
events = ["push"]
payload = {{ nonce = "{{body.ref}}: {{body.head_commit.message|nothing}}" }}

[rest.endpoints.strict]
job = "heartbeat"
secret = "{HOOK_SECRET}"
payload = {{ nonce = "{{body.head_commit.message}}" }}

{SENDERS}
[rest.endpoints.plain]
job = "heartbeat"
payload = {{ nonce = "{{query.a}} and {{body.list.1}}" }}

[rest.endpoints.run]
job = "shell.cmd"
payload = {{ argv = ["sh", "-c", "echo $0", "{{body.word}}"] }}

[rest.endpoints.loop]
job = "rest.request"
payload = {{ endpoint = "loop" }}
"""


class Api:
    """A running ``3ox rest``.

    Args:
        environ: Its environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self.loaded = load_settings(environ=environ)
        self.bridge = Bridge(self.loaded)
        self.tokens = Tokens(self.loaded.workspace)
        self.output = Path(environ["BRIDGE_HOME"]) / "rest.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._made = 0

    def start(self) -> None:
        """Start it and wait until it serves."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                threeox("rest"), env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        ready, place = (self.loaded.workspace.run_dir / name for name in ("rest.ready", "rest.url"))
        pid = str(self.process.pid)

        def serves() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.output.read_text()
            return ready.exists() and ready.read_text() == pid

        eventually(serves, 30.0)
        self.url = place.read_text()

    def stop(self) -> int:
        """Stop it in order."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20.0)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10.0)

    def client(self, scope: str | None = "admin") -> Client:
        """Return a client with a new token of a scope; without a token for None."""
        if scope is None:
            return Client(self.url)
        self._made += 1
        return Client(self.url, self.tokens.make(f"{scope}-{uuid.uuid4().hex[:8]}", scope))  # type: ignore[arg-type]

    def log(self) -> str:
        """Return its log."""
        return self.loaded.workspace.log_file.read_text()


@contextlib.contextmanager
def running_api(environ: Mapping[str, str]) -> Iterator[Api]:
    """Run the API for the time of a block."""
    api = Api(environ)
    api.loaded.workspace.create()
    api.start()
    try:
        yield api
    finally:
        if api.process is not None and api.process.poll() is None:
            api.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                api.process.wait(15.0)
            api.process.kill()
            api.process.wait(10.0)


@pytest.fixture(scope="session")
def rest_environ(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the shared bridge."""
    environ = bridge_environ(tmp_path_factory.mktemp("rest"), valkey, SETTINGS)
    yield environ
    sweep(environ)


@pytest.fixture(scope="session")
def shared_api(rest_environ: dict[str, str]) -> Iterator[Api]:
    """The shared API, with a worker; no test ends them."""
    with (
        running_api(rest_environ) as api,
        running_worker(Bridge(load_settings(environ=rest_environ)), rest_environ),
    ):
        yield api


@pytest.fixture
def api(shared_api: Api) -> Api:
    """The shared API, still alive."""
    assert shared_api.process is not None
    assert shared_api.process.poll() is None, shared_api.output.read_text()
    return shared_api


@pytest.fixture
def call(api: Api) -> Client:
    """A client that may do everything."""
    return api.client()


@pytest.fixture
def own_environ(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment of the test's own."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    own = {**environ, "BRIDGE_API_PORT": "0"}
    yield own
    sweep(own)
