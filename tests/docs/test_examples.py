"""Each program and each settings file of ``examples/`` does what it says, on a real bridge."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ingress.dispatch import Bridge
from middleware.job.policy import Policy
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.rest.conftest import Api, running_api
from tests.support import ROOT, bridge_environ, eventually, run_3ox, threeox
from tests.workers import running_worker, sweep

EXAMPLES = ROOT / "examples"
SECRET = "a-secret-of-this-test"


@pytest.fixture(scope="module")
def environ(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a bridge with home-server.toml and the project of report_progress.py."""
    about = (EXAMPLES / "report_progress.py").read_text().split('"""')[1]
    project = textwrap.dedent(re.findall(r"(?m)^    \[projects\.count\]\n(?:    .*\n)+", about)[0])
    project = project.replace("/path/to/examples", str(EXAMPLES)).replace("python3", sys.executable)
    settings = (EXAMPLES / "home-server.toml").read_text() + project
    home = tmp_path_factory.mktemp("examples")
    made = bridge_environ(home, valkey, settings, {"BACKUP_WEBHOOK_SECRET": SECRET})
    yield made
    sweep(made)


@pytest.fixture(scope="module")
def api(environ: dict[str, str]) -> Iterator[Api]:
    """Its API server, with a worker."""
    with running_api(environ) as api, running_worker(api.bridge, environ):
        yield api


def run_example(name: str, *arguments: str, environ: Mapping[str, str]) -> str:
    """Return what an example prints; it has to succeed."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_table_lists_every_example() -> None:
    """No file is missing from the README, and none is listed that does not exist."""
    listed = re.findall(r"^\| \[([\w.-]+)\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(
        file.name for file in EXAMPLES.iterdir() if file.suffix in {".py", ".toml"}
    )


def test_submit(api: Api) -> None:
    """It prints the states, the output and the receipt of its job."""
    printed = run_example("submit.py", environ=api.environ)
    assert "completed: " in printed
    assert "step 1\nstep 2\nstep 3\n" in printed
    assert re.findall(r"Z (\w+)$", printed, re.MULTILINE) == ["queued", "processing", "completed"]


def test_rest_client(api: Api) -> None:
    """It prints the result of its job; a refusal is printed with its remedy."""
    token = str(api.client("submit").token)
    printed = run_example("rest_client.py", environ={**api.environ, "URL": api.url, "TOKEN": token})
    assert "completed {" in printed
    assert "hello" in printed
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "rest_client.py")],
        env={**api.environ, "URL": api.url, "TOKEN": "wrong"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("401: ")


def test_send_webhook(api: Api) -> None:
    """The signed request becomes a backup; with a wrong secret it is refused."""
    home = Path(api.environ["BRIDGE_HOME"])
    (home / "WORKDESK" / "a.txt").write_text("a")
    environ = {**api.environ, "URL": api.url}
    printed = run_example("send_webhook.py", "backup", '{"name": "before-upgrade"}', environ=environ)
    assert printed.startswith("202 ")
    eventually((home / "backup-before-upgrade.tar.gz").exists, 30.0)
    with pytest.raises(AssertionError, match="401"):
        run_example(
            "send_webhook.py", "backup", "{}", environ={**environ, "BACKUP_WEBHOOK_SECRET": "another secret"}
        )


def test_report_progress(api: Api) -> None:
    """Its lines become progress; a cancelled job ends by its own hand."""
    done = run_3ox("run", "count", "3", "--wait", environ=api.environ, timeout_s=60.0)
    assert done.returncode == 0, done.stderr
    assert "counted to 3" in done.stdout
    assert "::progress" not in done.stdout
    line = run_3ox("run", "count", "600", environ=api.environ).stdout
    job_id = line.strip().rpartition(":")[2]

    def counts() -> bool:
        job = api.bridge.reader.job(job_id)
        return job.progress is not None and "of 600" in (job.progress_message or "")

    eventually(counts, 30.0)
    assert run_3ox("cancel", job_id, environ=api.environ).returncode == 0
    eventually(lambda: api.bridge.reader.job(job_id).status == "cancelled", 30.0)
    assert "stopped, nothing left behind" in str(api.bridge.reader.output(job_id))


@contextlib.contextmanager
def running_scheduler(environ: Mapping[str, str]) -> Iterator[None]:
    """Run ``3ox clock`` for the time of a block."""
    process = subprocess.Popen(
        threeox("clock"), env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(20.0) == 0


def test_schedule(valkey: str, tmp_path: Path) -> None:
    """Both schedules load; with the interval shortened to a second, a run completes."""
    text = (EXAMPLES / "schedule.toml").read_text()
    assert 'every = "15m"' in text
    environ = bridge_environ(tmp_path, valkey, text.replace('every = "15m"', 'every = "1s"'))
    loaded = load_settings(environ=environ)
    assert [row.id for row in loaded.settings.schedule] == ["nightly-cleanup", "disk-space"]
    loaded.workspace.create()
    bridge = Bridge(loaded)
    with running_worker(bridge, environ), running_scheduler(environ):
        eventually(lambda: bridge.reader.page(status="completed", source="clock").jobs, 30.0)
    sweep(environ)


def test_home_server(api: Api) -> None:
    """Its projects run, its policy decides as its comments say, its settings are valid."""
    done = run_3ox("run", "disk", "/", "--wait", environ=api.environ, timeout_s=60.0)
    assert done.returncode == 0, done.stderr
    assert "Filesystem" in done.stdout
    policy = Policy(api.loaded.settings.policy)

    def effect(source: str, project: str) -> str:
        job = make_job("task.custom", {"task": "x"}, project=project, source=source, trust="member")
        return policy.decide(job).effect

    assert effect("telegram", "disk") == "allow"
    assert effect("telegram", "backup") == "approve"
    assert effect("webhook", "backup") == "allow"
    assert effect("rest", "backup") == "deny"
    checked = run_3ox("config", "--json", environ=api.environ)
    assert checked.returncode == 0, checked.stderr
