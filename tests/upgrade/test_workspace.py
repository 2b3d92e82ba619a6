"""A workspace that version 0.1.0 left behind starts under this version, and nothing in it is lost.

``workspace-0.1.0.tar.gz`` was made with that version: one worker, a dropped file, a session of two questions,
a failed command, a token; then jobs in every waiting state, ``3ox down``, and one job in the spool.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Cli
from tests.rest.client import Client
from tests.support import clean_environ, eventually

ARCHIVE = Path(__file__).with_name("workspace-0.1.0.tar.gz")
#: Made by ``3ox token make scripts --scope submit`` in that workspace.
TOKEN = "3ox_b2e5e542_elZQaTDW2VwFncKeX5xBy5PBUYYbOH_ciAl0J2oIkTM"
ENDED = {
    "01m8p13t841vrdahhhrj": "completed",  # run demo hello
    "01m8p13y3xhb12msqjw3": "completed",  # a dropped file
}
#: Jobs that waited: queued, queued for a project with concurrency 1, held for that one, scheduled, spooled.
WAITING = {
    "01m8p1405eaapz2q4hvq": "queued\n",
    "01m8p14096gwej80vs2j": "a task that waits\n",
    "01m8p140bsp3zvzvfc35": "after it\n",
    "01m8p140e9qy13zb72tn": "scheduled\n",
    "01m8p1457se67ds6rar3": "spooled\n",
}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line over that workspace, with this version's bridge started in it."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    cli = Cli(clean_environ({"BRIDGE_HOME": str(folder / "cmd.bridge")}))
    started = cli("up", "--detach", "--workers", "1", "--threads", "2")
    assert started.code == 0, started.err
    yield cli
    assert cli("down").code == 0
    cli.end()


def test_jobs_that_waited_are_carried_out(cli: Cli) -> None:
    """Each runs once, in whatever state it waited, the one in the spool included."""
    for job_id, output in WAITING.items():
        job = eventually(partial(_completed, cli, job_id), 60.0)
        assert job is not None
        assert (job["attempt"], job["crashes"]) == (1, 0), job
        assert cli("logs", job_id).out == output


def _completed(cli: Cli, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = cli.job(job_id)
    return job if job["status"] == "completed" else None


def test_history_and_ledger_hold(cli: Cli) -> None:
    """Jobs that had ended are found with their receipts, and the ledger is proven across the upgrade."""
    test_jobs_that_waited_are_carried_out(cli)
    for job_id, status in ENDED.items():
        assert cli.job(job_id)["status"] == status
        assert cli("receipt", job_id, "--json").json["status"] == status
    listed = {job["job_id"] for job in cli("jobs", "--all", "--json", "--limit", "50").json["jobs"]}
    assert listed >= ENDED.keys() | WAITING.keys()
    eventually(lambda: cli("verify", "--json").code == 0, 15.0)


def test_sessions_and_tokens_hold(cli: Cli) -> None:
    """The conversation has both of its questions, and the token still opens the API for its scope."""
    shown = cli("sessions", "show", "memo", "--json").json
    assert [message["text"] for message in shown["messages"] if message["role"] == "user"] == [
        "Say hi",
        "Say it again",
    ], shown
    tokens = cli("token", "list", "--json").json
    assert {"scripts"} <= {token["name"] for token in tokens["tokens"]}, tokens
    daemons = cli("status", "--json").json["daemons"]
    url = next(daemon["url"] for daemon in daemons if daemon["name"] == "rest")
    assert Client(url, TOKEN)("GET", "/v1/jobs?limit=1").status == 200
    assert Client(url, TOKEN[:-1] + "x")("GET", "/v1/jobs?limit=1").status == 401
