"""The policy at submission: what is refused, held, listed and decided, in Python and on the command line."""

from __future__ import annotations

import pytest

from ingress.core.acceptance import Acceptance
from ingress.dispatch import approve, deny, dispatch, dispatch_many, get_job, list_approvals, list_jobs
from middleware.context import JobContext, set_current_job
from middleware.job.schema import Job, make_job
from ops.errors import JobNotFound, PolicyDenied, WrongState
from ops.spool import Spool
from tests.cli.support import Cli
from tests.governance.conftest import Governed

ASK_FIRST = """
[[policy]]
source = "rest"
job_type = "shell.cmd"
effect = "approve"

[[policy]]
job_type = "heartbeat"
actor = "mallory"
effect = "deny"

[[policy]]
job_type = "heartbeat"
actor = "ci"
effect = "allow"
"""


def command(**fields: object) -> Job:
    """Return a job as if submitted over REST."""
    return make_job("shell.cmd", {"argv": ["true"]}, source="rest", trust="member", **fields)


def test_a_denied_job_is_not_taken(governed: Governed) -> None:
    """Nothing is stored; of a sequence, no job at all."""
    bridge = governed("")
    with pytest.raises(PolicyDenied):
        bridge.submit(command())
    with pytest.raises(PolicyDenied):
        dispatch_many([make_job("heartbeat", {}), command()])
    assert list_jobs().jobs == []


def test_a_denied_job_is_not_spooled(governed: Governed) -> None:
    """A daemon refuses it also while the store is unavailable; one in the spool is quarantined."""
    bridge = governed("")
    acceptance = Acceptance(bridge)
    with pytest.raises(PolicyDenied):
        acceptance.accept(command())
    spool = Spool(bridge.loaded.workspace.spool_dir, max_bytes=1_000_000)
    spool.add("older", b'{"job":{"job_type":"shell.cmd","payload":{"argv":["true"]},"source":"rest"}}')
    assert acceptance.submit_spooled() == 0
    assert spool.is_empty()


def test_a_job_that_needs_approval_waits(governed: Governed) -> None:
    """It is held, listed with its reason, and runs when approved; the receipt records each step."""
    bridge = governed(ASK_FIRST)
    receipt = bridge.submit(command(actor="ci-1"))
    assert (receipt.status, receipt.policy) == ("held", "rule 1: approve")
    assert [(job.job_id, job.approval) for job in list_approvals()] == [(receipt.job_id, "waits")]
    assert get_job(receipt.job_id).reason == "waiting for approval (rule 1)"
    decided = approve(receipt.job_id[-8:], actor="bob", reason="it is harmless")
    assert decided.status == "queued"
    assert decided.policy == "rule 1: approve"
    assert decided.transitions[-1].reason == "approved by bob: it is harmless"
    assert approve(receipt.job_id, actor="bob").status == "queued"
    assert list_approvals() == []
    with pytest.raises(WrongState, match="it was approved"):
        deny(receipt.job_id, actor="eve")


def test_a_denial_by_hand_is_an_end(governed: Governed) -> None:
    """It can no longer be approved; unknown jobs are not found."""
    bridge = governed(ASK_FIRST)
    job_id = bridge.submit(command()).job_id
    assert deny(job_id, actor="bob", reason="no").status == "cancelled"
    with pytest.raises(WrongState, match="it was denied"):
        approve(job_id, actor="bob")
    with pytest.raises(JobNotFound):
        approve("0" * 20, actor="bob")


def test_the_rule_that_allowed_a_job_is_on_its_receipt(governed: Governed) -> None:
    """If no rule matched it is empty, whatever the interface wrote there."""
    governed(ASK_FIRST)
    assert dispatch("heartbeat", {}, actor="ci").policy == "rule 3: allow"
    free = dispatch("heartbeat", {}, actor="bob", metadata={"policy": "rule 9: allow", "a": "b"})
    assert free.policy == ""
    assert get_job(free.job_id).metadata == {"a": "b"}
    with pytest.raises(PolicyDenied, match="rule 2"):
        dispatch("heartbeat", {}, actor="mallory")


def test_a_job_cannot_give_more_trust_than_it_has(governed: Governed) -> None:
    """A job that is submitted by a running job has at most that job's trust."""
    governed("")

    class Nowhere:
        def progress(self, percent: float, message: str) -> None: ...
        def output(self, text: str, stream: str) -> None: ...
        def flush(self) -> None: ...

    parent = make_job("heartbeat", {}, source="station", trust="untrusted")
    set_current_job(JobContext(parent, Nowhere()))
    try:
        with pytest.raises(PolicyDenied):
            dispatch("shell.cmd", {"argv": ["true"]})
        assert dispatch("heartbeat", {}).trust == "untrusted"
    finally:
        set_current_job(None)


def test_the_command_line_approves_and_denies(governed: Governed, environ: dict[str, str]) -> None:
    """``approve`` without an ID lists what waits; the login name is recorded in the receipt."""
    bridge = governed(ASK_FIRST)
    cli = Cli(environ)
    yes, no = bridge.submit(command(actor="ci-1")).job_id, bridge.submit(command()).job_id
    listed = cli("approve")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == sorted([yes, no])
    assert [job["job_id"] for job in cli("approve", "--json").json["jobs"]] == sorted([yes, no])
    assert cli("jobs", "--status", "held", "--json").json["summary"]["held"] == 2
    assert cli("approve", yes[-8:], "--reason", "fine") == (0, f"{yes} queued\n", "")
    assert cli("deny", no, "--json").json["receipts"][0]["status"] == "cancelled"
    assert cli("approve").out == "No job is waiting for approval.\n"
    moves = cli("receipt", yes, "--json").json["transitions"]
    assert moves[-1]["reason"].startswith("approved by ")
    assert moves[-1]["reason"].endswith(": fine")
    code, out, err = cli("approve", no)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "it was denied" in err
    assert cli("deny", "zzzzzzzz").code == 4


def test_a_denied_command_line_says_who_can_change_it(governed: Governed, environ: dict[str, str]) -> None:
    """Exit code 2, one line on stderr; also without a store, where no approval is possible."""
    governed('[[policy]]\njob_type = "shell.cmd"\neffect = "deny"\n')
    away = Cli({**environ, "BRIDGE_REDIS_URL": f"unix://{environ['BRIDGE_HOME']}/none.sock"})
    for cli in (Cli(environ), away):
        code, out, err = cli("sh", "--", "echo", "x")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "rule 1 of 3ox.toml" in err
    governed('[[policy]]\njob_type = "shell.cmd"\neffect = "approve"\n')
    code, out, err = away("sh", "--", "echo", "x")
    assert (code, out) == (2, "")
    assert "Without a store it cannot wait" in err
