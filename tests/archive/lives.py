"""Jobs without a worker: submitted, cancelled, run by the test, removed."""

from __future__ import annotations

from ingress.core import control
from ingress.dispatch import Bridge, dispatch
from middleware.broker.transitions import Settlement
from middleware.job.schema import make_job
from tests.payloads import declared

#: Queue of the questions that these tests submit.
ASK_QUEUE = declared("ask").queue


def some_jobs(bridge: Bridge, count: int = 3) -> list[str]:
    """Submit jobs and cancel every second one: one or two transitions each."""
    jobs = [dispatch("heartbeat", {}, actor="eve").job_id for _ in range(count)]
    for job_id in jobs[::2]:
        control.cancel(bridge, job_id, f"not needed: {job_id}")
    return jobs


def carry_out(
    bridge: Bridge, task: str = "x", outcome: str = "completed", result: bytes = b'{"text":"y"}'
) -> str:
    """Submit and complete a job without a worker; return its id."""
    job = make_job("ask", {"prompt": task}, source="rest")
    bridge.submit(job)
    fetched = bridge.scripts.fetch("w1", ASK_QUEUE, room=1, delivery=job.job_id, lease_ms=60_000)
    assert fetched.jobs[0].job_id == job.job_id
    report = bridge.scripts.report_command(
        *("w1", job.job_id, job.job_id),
        percent="50",
        message="half",
        output=[("out", f"output of {task}\n")],
        bundle=1,
    )
    bridge.scripts.run_many([report])
    bridge.scripts.settle("w1", job.job_id, job.job_id, Settlement(outcome=outcome, result=result, reason=""))
    return job.job_id


def forget(bridge: Bridge) -> None:
    """Remove all final jobs from the store."""
    for state in ("completed", "failed", "cancelled"):
        bridge.scripts.purge(state, 1000)
