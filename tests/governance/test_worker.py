"""The policy in a real worker: it is asked again before a job runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingress.core import control
from ingress.dispatch import approve, get_receipt, retry, wait_for
from middleware.job.schema import make_job
from tests.governance.conftest import Governed
from tests.support import eventually
from tests.workers import running_worker

APPROVE = '[[policy]]\nsource = "rest"\njob_type = "shell.cmd"\neffect = "approve"\n'


def test_an_approved_command_runs_and_others_do_not(governed: Governed, environ: dict[str, str]) -> None:
    """One worker: approval, a denial after the fact, a retry by hand that would go round the approval."""
    bridge = governed(APPROVE)
    ran = Path(environ["BRIDGE_HOME"]) / "ran"

    def command(name: str, **fields: str) -> str:
        job = make_job("shell.cmd", {"argv": ["touch", f"{ran}-{name}"]}, **{"source": "cli", **fields})
        return bridge.submit(job).job_id

    with running_worker(bridge, environ):
        held = command("held", source="rest", trust="member", actor="ci")
        assert wait_for(command("free"), timeout_s=20).status == "completed"
        assert bridge.reader.status_of(held) == "held"
        approve(held, actor="bob")
        assert wait_for(held, timeout_s=20).status == "completed"
        moves = [(move.status, move.reason) for move in get_receipt(held).transitions]
        assert moves[1] == ("queued", "approved by bob")
        assert moves[-1][0] == "completed"

        gone = command("gone", source="rest", trust="member")
        control.cancel(bridge, gone, "cancelled by bob")
        retry(gone)
        record = wait_for(gone, timeout_s=20)
        assert record.status == "failed"
        assert record.error is not None
        assert record.error.type == "PolicyDenied"
        assert "this job was not" in record.reason

        later = bridge.submit(make_job("shell.cmd", {"argv": ["touch", f"{ran}-late"]}), delay_s=0.5).job_id
        governed('[[policy]]\njob_type = "shell.cmd"\neffect = "deny"\n')
        record = wait_for(later, timeout_s=20)
        assert record.status == "failed"
        assert record.reason.startswith(
            "refused: The policy denies shell.cmd from python: rule 1 of 3ox.toml"
        )
    assert sorted(item.name for item in ran.parent.glob("ran-*")) == ["ran-free", "ran-held"]


@pytest.mark.parametrize("ttl_s", [0.4])
def test_a_worker_ends_what_nobody_approves(
    governed: Governed, environ: dict[str, str], ttl_s: float
) -> None:
    """Without anyone looking at it, the job is cancelled with a reason."""
    bridge = governed(f"approval_ttl_s = {ttl_s}\n{APPROVE}")
    job = make_job("shell.cmd", {"argv": ["true"]}, source="rest", trust="member")
    with running_worker(bridge, environ):
        job_id = bridge.submit(job).job_id
        eventually(lambda: bridge.reader.job(job_id).is_final, 20.0)
    record = bridge.reader.job(job_id)
    assert (record.status, record.approval) == ("cancelled", "expired")
    assert record.reason == "expired: not approved within 0.4 s"
