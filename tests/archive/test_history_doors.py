"""The history through every interface: a scheduler archives, commands and routes show removed jobs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest

from ingress.dispatch import Bridge, all_jobs, connect, get_job, read_output, wait_for
from middleware.archive.history import History
from ops.settings.load import load_settings
from tests.clock.conftest import running_clocks
from tests.rest.conftest import running_api
from tests.support import eventually, run_3ox
from tests.workers import running_worker, sweep

SETTINGS = """
heartbeat_s = 0.5
types."shell.cmd".max_retries = 0

[deliver]
types = ["shell.cmd"]
"""


class Desk:
    """A bridge with worker and clock, by its command line.

    Args:
        environ: Its environment.
        bridge: The same, to look at.
    """

    def __init__(self, environ: dict[str, str], bridge: Bridge) -> None:
        self.environ, self.bridge = environ, bridge

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command."""
        return run_3ox(*arguments, environ=self.environ)

    def json(self, *arguments: str) -> Any:
        """Run a command and return its JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout)

    def archived(self, job_id: str) -> bool:
        """Return whether the history has the job exactly as the store does, with its deliveries."""
        with History(self.bridge.loaded.workspace.history_db) as history:
            return history.job(job_id) == self.bridge.reader.job(job_id)

    def forget(self) -> None:
        """Remove all final jobs from the store, as a user does."""
        for status in ("completed", "failed", "cancelled"):
            assert self.run("jobs", "purge", "--status", status).returncode == 0


@pytest.fixture
def desk(environ: dict[str, str]) -> Iterator[Desk]:
    """A bridge with a worker and a clock."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    bridge = connect(load_settings(environ=environ))
    try:
        with running_worker(bridge, environ), running_clocks(environ, bridge):
            yield Desk(environ, bridge)
    finally:
        sweep(environ)


def test_commands_show_a_job_as_before_when_only_the_history_has_it(desk: Desk) -> None:
    """List, search, job, receipt, output, export and wait return the same before and after."""
    done = desk.run("sh", "--", "sh", "-c", "echo apple; echo pear >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "apple\n", "pear\n")
    assert desk.run("sh", "--", "false").returncode == 1
    good, bad = sorted(job["job_id"] for job in desk.json("jobs")["jobs"])
    eventually(lambda: all(item.status == "completed" for item in get_job(good).deliveries))
    eventually(lambda: desk.archived(good) and desk.archived(bad))

    def shown() -> list[Any]:
        return [
            desk.json("jobs", "--all")["jobs"],
            desk.json("jobs", "--search", "apple")["jobs"],
            *(desk.json(*command, good[-9:]) for command in (("jobs",), ("receipt",), ("logs",))),
            desk.run("export").stdout,
            desk.run("logs", good).stdout + desk.run("logs", good).stderr,
        ]

    before = shown()
    desk.forget()
    assert desk.bridge.reader.summary()["completed"] == 0
    after = shown()
    assert after == before
    assert [job["job_id"] for job in after[0]] == [bad, good]
    assert [job["job_id"] for job in after[1]] == [good]
    assert desk.json("jobs")["jobs"] == []
    assert desk.run("jobs", bad, "--watch").returncode == 1
    assert wait_for(good).status == "completed"
    assert [piece.text for piece in read_output(good, follow=True)] == ["apple\n", "pear\n"]
    lines = [msgspec.json.decode(line)["job_id"] for line in desk.run("export").stdout.splitlines()]
    assert lines == [bad, good]
    assert desk.run("jobs", "zzzzzzzz").returncode == 4


def test_sqlite_is_not_loaded_for_what_the_store_has() -> None:
    """Lists, jobs and receipts of the store do not load SQLite, which would delay the command."""
    code = (
        "import sys, ingress.cli.jobs, ingress.cli.export, ingress.cli.actions\n"
        "print('sqlite3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_export_is_narrowed_and_replaces_its_file_at_the_end(desk: Desk, tmp_path: Path) -> None:
    """One job per line, those that match the filters; an invalid filter leaves the file unchanged."""
    for word in ("red", "green"):
        assert desk.run("sh", "--", "echo", word).returncode == 0
    assert desk.run("run", "none", "x").returncode == 2
    file = tmp_path / "jobs.jsonl"
    file.write_text("old\n")
    assert desk.run("export", "--day", "yesterday", "--output", str(file)).returncode == 2
    assert desk.run("export", "--search", "...", "--output", str(file)).returncode == 2
    assert file.read_text() == "old\n"
    assert desk.run("export", "--search", "green", "--output", str(file)).stderr.startswith(
        "3ox: 1 job written"
    )
    (line,) = file.read_text().splitlines()
    assert msgspec.json.decode(line)["payload"]["argv"] == ["echo", "green"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".jobs.jsonl*")) == []
    assert desk.run("export", "--type", "ask").stdout == ""


def test_rest_pages_through_both(desk: Desk) -> None:
    """Job, receipt, result and output come from the history; lists cover both, each job once."""
    desk.run("sh", "--", "echo", "apple")
    (job,) = all_jobs(limit=10).jobs
    eventually(lambda: all(item.status == "completed" for item in get_job(job.job_id).deliveries))
    eventually(lambda: desk.archived(job.job_id))
    with running_api({**desk.environ, "BRIDGE_API_PORT": "0"}) as api:
        call = api.client("view")
        routes = [f"/v1/jobs/{job.job_id}{part}" for part in ("", "/receipt", "/result", "/output")]
        before = [call("GET", route).json for route in routes]
        desk.forget()
        assert [call("GET", route).json for route in routes] == before
        assert before[3]["chunks"][0]["text"] == "apple\n"
        after = before[3]["chunks"][0]["entry_id"]
        assert call("GET", f"{routes[3]}?after={after}").json["chunks"] == []
        desk.run("sh", "--", "echo", "pear")
        assert call("GET", "/v1/jobs").json["jobs"][0]["payload"]["argv"] == ["echo", "pear"]
        first = call("GET", "/v1/jobs?all=true&limit=1").json
        second = call("GET", f"/v1/jobs?all=true&limit=1&cursor={first['next']}").json
        assert [page["jobs"][0]["payload"]["argv"][1] for page in (first, second)] == ["pear", "apple"]
        found = call("GET", "/v1/jobs?search=apple").json
        assert [item["job_id"] for item in found["jobs"]] == [job.job_id]
        assert call("GET", f"/v1/jobs?cursor={first['next']}").status == 409
        assert call("GET", "/v1/jobs?day=2026-13-01").status == 409
        assert call("GET", "/v1/jobs?search=%20%2D").status == 409
        assert call("GET", "/v1/jobs?day=2001-01-01").json["jobs"] == []
        assert call("GET", "/v1/jobs/zzzzzzzz").status == 404
