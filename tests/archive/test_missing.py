"""Jobs that were removed from the store: what commands show, with and without a history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.core import control
from ingress.core.deliveries import list_undelivered, redeliver
from ingress.dispatch import Bridge, connect, get_job
from middleware.archive.archivist import Archivist
from middleware.archive.history import History
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import JobNotFound, WrongState
from ops.settings.load import load_settings
from tests.archive.conftest import Scribe
from tests.cli.support import Cli


@pytest.fixture
def own(environ: dict[str, str]) -> Bridge:
    """A bridge without workers, whose results go to 0UT.3OX."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text('[deliver]\ntypes = ["shell.cmd"]\n')
    return connect(load_settings(environ=environ))


@pytest.fixture
def archivist(own: Bridge) -> Iterator[Archivist]:
    """The archivist of that bridge."""
    with History(own.loaded.workspace.history_db, writable=True) as history:
        yield Archivist(own.reader, history, retention_s=3600, rows_max=1000, output_max_bytes=1000)


@pytest.fixture
def cli(environ: dict[str, str]) -> Cli:
    """The command line of that bridge."""
    return Cli(environ)


def end(bridge: Bridge) -> str:
    """Submit and cancel a job; return its id."""
    job_id = bridge.submit(make_job("shell.cmd", {"argv": ["true"]})).job_id
    control.cancel(bridge, job_id, "cancelled by a test")
    return job_id


def test_a_deleted_job_is_known_by_the_ledger(own: Bridge, scribe: Scribe, cli: Cli) -> None:
    """Neither store nor history has it: exit code 4 and the last sealed state; the log says who purged it."""
    job_id = end(own)
    scribe.seal()
    purged = cli("jobs", "purge", "--status", "cancelled")
    assert (purged.code, purged.out, purged.err) == (0, "1 cancelled job deleted.\n", "")
    shown = cli("jobs", job_id)
    assert (shown.code, shown.out, shown.err.count("\n")) == (4, "", 1)
    assert (
        f"Job {job_id} was removed from store and history; its last state in the ledger is cancelled at 20"
        in shown.err
    )
    assert "cancelled by a test." in shown.err
    lines = [json.loads(line) for line in own.loaded.workspace.log_file.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "jobs.purged"]
    assert (line["status"], line["jobs"], bool(line["actor"])) == ("cancelled", 1, True)
    never = cli("jobs", "01m80ebxp4nhqap3sz8m")
    assert never.code == 4
    assert "Job '01m80ebxp4nhqap3sz8m' not found." in never.err


def test_a_removed_job_is_shown_from_the_history(own: Bridge, archivist: Archivist, cli: Cli) -> None:
    """The text says that it is no longer in the store; JSON is as before."""
    job_id = end(own)
    before = cli("jobs", job_id, "--json").out
    assert "kept  " not in cli("jobs", job_id).out
    while archivist.archive():
        pass
    assert cli("jobs", "purge", "--status", "cancelled").code == 0
    assert "in the history; the store no longer has it" in cli("jobs", job_id).out
    assert cli("jobs", job_id, "--json").out == before
    refused = cli("retry", job_id)
    assert refused.code == 4
    assert f"{job_id} is no longer in the store; the history has it as cancelled." in refused.err


def test_what_became_of_a_delivery_is_said_after_its_job_was_deleted(
    own: Bridge, archivist: Archivist, cli: Cli
) -> None:
    """Archived while it was pending, cancelled since: found, listed and explained, not retried."""
    job_id = end(own)
    while archivist.archive():
        pass
    assert [item.status for item in get_job(job_id).deliveries] == [State.QUEUED]
    assert own.scripts.purge("cancelled", 10) == 1
    assert [record.job_id for record in list_undelivered()] == [job_id], "listed, though its job is gone"
    own.scripts.cancel(f"{job_id}-1", "the job was deleted before it was delivered")
    (delivery,) = get_job(job_id).deliveries
    assert (delivery.status, delivery.reason) == ("cancelled", "the job was deleted before it was delivered")
    with pytest.raises(WrongState, match="is no longer in the store, so its result cannot be delivered"):
        redeliver(job_id)
    own.store.call("DEL", own.reader.keys.job(f"{job_id}-1"))
    (delivery,) = get_job(job_id).deliveries
    assert (delivery.status, "the store has removed both since" in delivery.reason) == ("queued", True)
    assert cli("jobs", job_id).out.count("delivery  outbox: undelivered, queued; its state when") == 1
    with pytest.raises(JobNotFound):
        get_job("01m80ebxp4nhqap3sz8m")
    assert list_undelivered() == []
