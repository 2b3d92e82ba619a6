"""Spooled jobs are found by id like any other, with the reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingress.core import control
from ingress.core.acceptance import Acceptance
from ingress.core.spooled_jobs import SPOOLED, Spooled
from ingress.dispatch import Bridge, connect, get_job, get_receipt, wait_for
from middleware.job.records import JobRecord
from middleware.job.schema import Job, encode_job, make_job
from ops.errors import AmbiguousJobId, JobNotFound, WaitTimeout, WrongState
from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.dispatch.test_faults import mortal
from tests.support import RunningValkey, frozen
from tests.workers import running_worker

__all__ = ["mortal"]


@pytest.fixture
def cli(mortal: tuple[RunningValkey, dict[str, str]]) -> Iterator[Cli]:
    """The command line of a bridge whose store may die; the functions of this process use it too."""
    connect(load_settings(environ=mortal[1]))
    cli = Cli(mortal[1])
    yield cli
    cli.end()


@pytest.fixture
def acceptance(mortal: tuple[RunningValkey, dict[str, str]]) -> Iterator[Acceptance]:
    """What a daemon has; hands nothing over before it is started."""
    accepting = Acceptance(Bridge(load_settings(environ=mortal[1]), timeout_s=0.5))
    yield accepting
    accepting.stop()


def lay_down(acceptance: Acceptance, job: Job) -> str:
    """Put a job into the spool as a daemon does during an outage; return its id."""
    entry = Spooled(job=msgspec.Raw(encode_job(job)))
    acceptance.spool.add(job.job_id, msgspec.json.encode(entry))
    return job.job_id


def assert_spooled(cli: Cli, job_id: str, waits_for: str) -> None:
    """See that every command finds the job, by its id and by a piece of it, and says what it waits for."""
    for part in (job_id, job_id[-8:], job_id[:-2]):
        found = cli("jobs", part, "--json")
        assert (found.code, found.err) == (0, "")
        assert (found.json["job_id"], found.json["status"]) == (job_id, SPOOLED)
        assert found.json["reason"].startswith("in the spool since 20")
        assert waits_for in found.json["reason"]
        assert found.json["payload"] == {"argv": ["true"]}
    text = cli("jobs", job_id)
    assert (text.code, text.err) == (0, "")
    assert "reason    in the spool since" in text.out
    logs = cli("logs", job_id[-8:])
    assert (logs.code, logs.out, logs.err.count("\n")) == (0, "", 1)
    assert f"job {job_id} is spooled: in the spool since" in logs.err
    waited = cli("wait", job_id[-8:], "--timeout", "0.2")
    assert (waited.code, waited.out) == (124, "")
    assert waited.err.count(f"{waits_for}") == 2, "at once, and when the time is up"
    receipt = cli("receipt", job_id[-8:], "--json")
    assert (receipt.code, receipt.json["job_id"], receipt.json["status"]) == (0, job_id, SPOOLED)
    assert len(receipt.json["input_sha256"]) == 64
    listed = cli("jobs", "--status", SPOOLED, "--json").json
    assert [job["job_id"] for job in listed["jobs"]] == [job_id]
    assert listed["summary"] == {SPOOLED: 1}


def test_a_spooled_job_is_found_while_the_store_is_gone(
    mortal: tuple[RunningValkey, dict[str, str]], cli: Cli, acceptance: Acceptance
) -> None:
    """Every command says since when it lies there, and that waiting for the store."""
    mortal[0].kill()
    receipt = acceptance.accept(make_job("shell.cmd", {"argv": ["true"]}, source="clock"))
    assert_spooled(cli, receipt.job_id, "waiting for the store")
    assert cli("receipt", receipt.job_id, "--json").json["input_sha256"] == receipt.input_sha256
    assert cli("jobs", "01m80ebxp4nhqap3sz8m").code == 3
    status = cli("status")
    assert (status.code, status.out) == (3, "")
    assert "1 job in the spool" in status.err
    assert cli("status", "--json").json["spool"] == {"jobs": 1}


def test_a_spooled_job_is_found_while_the_store_stands_still(
    mortal: tuple[RunningValkey, dict[str, str]], cli: Cli, acceptance: Acceptance
) -> None:
    """A store that is silent costs a second, not its whole time-out."""
    job_id = lay_down(acceptance, make_job("shell.cmd", {"argv": ["true"]}))
    with frozen(mortal[0].pid):
        began_s = time.monotonic()
        found = cli("jobs", job_id, "--json")
        assert time.monotonic() - began_s < 3.0
        assert found.json["status"] == SPOOLED
        assert "waiting for the store: The store at" in found.json["reason"]


def test_a_spooled_job_is_found_while_the_store_is_there(cli: Cli, acceptance: Acceptance) -> None:
    """It waits for a daemon then, and the reason says that none runs; acts on it say why they cannot be."""
    job_id = lay_down(acceptance, make_job("shell.cmd", {"argv": ["true"]}))
    assert_spooled(cli, job_id, "none is running: start one with '3ox up'")
    for act in ("cancel", "retry", "approve"):
        refused = cli(act, job_id[-8:])
        assert (refused.code, refused.out) == (2, "")
        assert f"{job_id} is not in the store yet: in the spool since" in refused.err
    listed = cli("jobs")
    assert "In the spool: 1 job; --status spooled lists them." in listed.out
    assert cli("receipt", job_id, "--verify").code == 2
    assert cli("jobs", "01m80ebxp4nhqap3sz8m").code == 4
    assert "(1 ahead of it)" in get_job(lay_down(acceptance, make_job("heartbeat", {}))).reason


def test_a_full_queue_is_named(mortal: tuple[RunningValkey, dict[str, str]], acceptance: Acceptance) -> None:
    """What keeps the store from taking a job is said."""
    bridge = connect(load_settings(environ={**mortal[1], "BRIDGE_QUEUE_MAX": "1"}))
    bridge.submit(make_job("heartbeat", {}))
    job_id = lay_down(acceptance, make_job("heartbeat", {}))
    assert "waiting for room in the queue, which is full (queue_max is 1)" in get_job(job_id).reason


def test_a_piece_that_fits_in_store_and_spool_is_ambiguous(cli: Cli, acceptance: Acceptance) -> None:
    """One id in the store, one in the spool, the same end: neither is guessed."""
    del cli
    taken = make_job("heartbeat", {}, job_id="01m80ebxp4aaaaaaazzz")
    acceptance.accept(taken)
    lay_down(acceptance, make_job("heartbeat", {}, job_id="01m80ebxp4bbbbbbbzzz"))
    with pytest.raises(AmbiguousJobId, match="matches more than one"):
        get_job("zzz")
    assert get_job("aaazzz").job_id == taken.job_id


def test_a_wait_goes_on_from_the_spool_to_the_end(
    mortal: tuple[RunningValkey, dict[str, str]], cli: Cli, acceptance: Acceptance
) -> None:
    """Clients that wait for, follow or watch a job during an outage get its end when the store is back."""
    server, environ = mortal
    server.kill()
    job = make_job("shell.cmd", {"argv": ["echo", "at last"]})
    assert acceptance.accept(job).status == SPOOLED
    waiting = cli.start("wait", job.job_id[-8:])
    following = cli.start("logs", "-f", job.job_id)
    watching = cli.start("jobs", "--watch", job.job_id)
    for process in (waiting, following):
        assert process.stderr is not None
        assert "is spooled: in the spool" in process.stderr.readline()
    assert watching.stdout is not None
    assert f"{job.job_id[-8:]}  {SPOOLED}  0%  in the spool" in watching.stdout.readline()
    server.start()
    with running_worker(Bridge(load_settings(environ=environ)), environ):
        acceptance.start()
        assert waiting.communicate(timeout=30)[0].startswith(f"{job.job_id} completed")
        assert following.communicate(timeout=30)[0] == "at last\n"
        assert "completed" in watching.communicate(timeout=30)[0].splitlines()[-1]
    assert (waiting.returncode, following.returncode, watching.returncode) == (0, 0, 0)


def test_what_was_refused_at_the_hand_over_says_why(
    cli: Cli, acceptance: Acceptance, mortal: tuple[RunningValkey, dict[str, str]]
) -> None:
    """It is shown as failed, with the refusal, where the entry lies, and the exit code of a failed job."""
    job_id = lay_down(acceptance, make_job("heartbeat", {}, resources={"gpu": 1}))
    ends: list[JobRecord] = []
    waiter = threading.Thread(target=lambda: ends.append(wait_for(job_id, timeout_s=20.0)))
    waiter.start()
    assert acceptance.submit_spooled() == 0
    waiter.join(20.0)
    assert [end.status for end in ends] == ["failed"], "clients that wait get it, too"
    found = cli("jobs", job_id[-8:], "--json").json
    assert (found["status"], found["error"]["type"]) == ("failed", "InvalidJob")
    assert "Unknown resource 'gpu'" in found["reason"]
    aside = Path(mortal[1]["BRIDGE_HOME"]) / ".3ox" / "spool" / "refused"
    assert str(aside) in found["reason"]
    assert cli("wait", job_id).code == 1
    receipt = get_receipt(job_id)
    assert [move.status for move in receipt.transitions] == [SPOOLED, "failed"]
    assert cli("retry", job_id).code == 2
    with pytest.raises(WrongState, match="Unknown resource 'gpu'"):
        control.cancel(Bridge(load_settings(environ=mortal[1])), job_id, "to see")


def test_a_job_whose_key_was_taken_meanwhile_names_the_other(
    cli: Cli, acceptance: Acceptance, mortal: tuple[RunningValkey, dict[str, str]]
) -> None:
    """Another door took the same command while this one had it on disk: the second id is not lost."""
    first = Bridge(load_settings(environ=mortal[1])).submit(make_job("heartbeat", {}, idempotency_key="k"))
    second = lay_down(acceptance, make_job("heartbeat", {}, idempotency_key="k"))
    assert acceptance.submit_spooled() == 1
    found = cli("jobs", second, "--json").json
    assert (found["status"], found["error"]) == ("cancelled", None)
    assert f"duplicate of {first.job_id}, which has the same idempotency key" in found["reason"]


def test_set_aside_entries_are_bounded(acceptance: Acceptance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, each with its reason."""
    monkeypatch.setattr("ops.spool.QUARANTINE_MAX", 3)
    spool = acceptance.spool
    for number in range(5):
        spool.quarantine(spool.add(f"job{number}", b"x"), b"why")
    assert [entry.name[30:] for entry in spool.quarantined()] == ["job2.job", "job3.job", "job4.job"]
    assert len(list((spool.folder / "refused").iterdir())) == 6


def test_a_wait_that_runs_out_says_that_the_job_is_spooled(cli: Cli, acceptance: Acceptance) -> None:
    """The error tells more than that the job has not ended."""
    del cli
    job_id = lay_down(acceptance, make_job("heartbeat", {}))
    with pytest.raises(WaitTimeout, match="in the spool since"):
        wait_for(job_id, timeout_s=0.1)
    with pytest.raises(JobNotFound):
        wait_for("01m80ebxp4nhqap3sz8m", timeout_s=0.1)
