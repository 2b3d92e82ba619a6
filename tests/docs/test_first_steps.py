"""The commands of docs/tutorial/first-steps.md work as written, on a real bridge."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.rest.conftest import Api, running_api
from tests.support import ROOT, bridge_environ, run_3ox, threeox
from tests.tools import require_tool
from tests.workers import running_worker, sweep

PAGE = (ROOT / "docs/tutorial/first-steps.md").read_text()


@pytest.fixture(scope="module")
def api(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API server with a worker, and the settings of the page."""
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    environ = bridge_environ(tmp_path_factory.mktemp("steps"), valkey, settings)
    with running_api(environ) as api, running_worker(api.bridge, environ):
        yield api
    sweep(environ)


def test_the_commands_run(api: Api) -> None:
    """A command, its job by a suffix of its id, a task with progress."""
    lines = re.findall(r"^\$ 3ox (sh .*|run .*)$", PAGE, re.MULTILINE)
    waited, detached, task = (shlex.split(line) for line in lines)
    done = run_3ox(*waited, environ=api.environ)
    assert (done.returncode, done.stdout) == (0, "working\ndone\n"), done.stderr
    job_id = run_3ox(*detached, environ=api.environ).stdout.strip()
    assert job_id in run_3ox("jobs", job_id[-6:], environ=api.environ).stdout
    assert run_3ox("cancel", job_id[-6:], environ=api.environ).returncode == 0
    done = run_3ox(*task, "--wait", environ=api.environ)
    assert (done.returncode, done.stdout.strip().endswith("hello, world")) == (0, True), done.stderr
    assert run_3ox("status", environ=api.environ).returncode == 0


def test_the_request_is_accepted(api: Api) -> None:
    """The snippet with curl prints the receipt of its job."""
    require_tool("curl")
    (snippet,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    script = f'3ox() {{ {shlex.join(threeox())} "$@"; }}\n' + snippet.replace(
        "http://127.0.0.1:7777", api.url.rstrip("/")
    )
    ran = subprocess.run(
        [require_tool("bash"), "-euc", script],
        env=api.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert '"status":"queued"' in ran.stdout
