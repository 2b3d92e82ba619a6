"""Deliveries by a real worker: once to each destination, also after an outage of one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ingress.core.deliveries import count_undelivered, list_undelivered, redeliver
from ingress.dispatch import dispatch_many, get_job, retry, wait_for
from middleware.job.schema import make_job
from ops.errors import WrongState
from tests.cli.support import Cli
from tests.egress.conftest import Delivering
from tests.egress.receiver import Receiver
from tests.support import eventually
from tests.workers import running_worker

HOOK = """
[[webhook]]
name = "ci"
url = "{url}/hook"
timeout_s = 2

[types.deliver]
backoff_min_s = 0.05
backoff_max_s = 0.2
max_retries = {retries}

[ask.command]
argv = ["cat"]
"""


def test_each_job_reaches_each_destination_once_after_an_outage(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """While the receiver is down, jobs are completed and counted as undelivered; afterwards all arrive."""
    bridge = delivering(HOOK.format(url=receiver.url, retries=100))
    receiver.status = 503
    with running_worker(bridge, environ, threads=8):
        jobs = [make_job("heartbeat", {"nonce": str(at)}) for at in range(120)]
        dispatch_many(jobs)
        eventually(lambda: bridge.reader.summary()["completed"] == len(jobs), 20.0)
        eventually(lambda: len(receiver.taken) > 5, 20.0)
        assert count_undelivered() == {"waiting": len(jobs), "failed": 0}
        listed = list_undelivered(1000)
        assert {record.job_id for record in listed} == {job.job_id for job in jobs}
        assert {record.status for record in listed} == {"completed"}
        waits = get_job(jobs[0].job_id).deliveries[0]
        assert (waits.sink, waits.delivered_at) == ("webhook:ci", None)
        receiver.status = 200
        eventually(lambda: count_undelivered() == {"waiting": 0, "failed": 0}, 30.0)
    arrived = Counter(taken.json["job"]["job_id"] for taken in receiver.accepted)
    assert arrived == Counter(job.job_id for job in jobs)
    assert list_undelivered() == []
    done = get_job(jobs[0].job_id).deliveries[0]
    assert (done.status, done.due_at) == ("completed", None)
    assert done.delivered_at is not None
    assert bridge.reader.summary()["completed"] == len(jobs)


def test_an_answer_is_in_the_outbox(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """A page with its receipt, beside the webhook; a retry by hand is delivered again."""
    bridge = delivering(HOOK.format(url=receiver.url, retries=100))
    with running_worker(bridge, environ):
        job = make_job("ask", {"prompt": "say it again", "provider": "command"}, actor="bob")
        bridge.submit(job)
        assert wait_for(job.job_id, timeout_s=20).status == "completed"
        done = eventually(
            lambda: [item for item in get_job(job.job_id).deliveries if item.status == "completed"][1:], 10.0
        )
    assert done
    record = get_job(job.job_id)
    assert [item.sink for item in record.deliveries] == ["outbox", "webhook:ci"]
    pages = sorted(Path(environ["BRIDGE_HOME"], "0UT.3OX").glob("*/*"))
    assert [page.name for page in pages] == [f"{job.job_id}.md", f"{job.job_id}.receipt.json"]
    assert "say it again" in pages[0].read_text()
    taken = receiver.taken[0]
    assert taken.json["job"]["deliveries"] == []
    assert taken.headers["webhook-id"].startswith(f"{job.job_id}-")


def test_a_delivery_that_outruns_its_limit_is_tried_again(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """The limit is that of its type, and running out of it is a failure like any other."""
    limits = "[types.deliver]\ntimeout_s = 0.2\nbackoff_min_s = 0.05\nbackoff_max_s = 0.2\n"
    bridge = delivering(f'[[webhook]]\nname = "ci"\nurl = "{receiver.url}"\ntimeout_s = 1\n{limits}')
    receiver.hang.clear()
    with running_worker(bridge, environ):
        job_id = bridge.submit(make_job("heartbeat", {})).job_id
        eventually(
            lambda: any(
                "longer than its limit of 0.2 s" in item.reason for item in get_job(job_id).deliveries
            ),
            10.0,
        )
        assert get_job(job_id).deliveries[0].status != "failed"
        receiver.hang.set()
        eventually(lambda: get_job(job_id).deliveries[0].status == "completed", 10.0)


def test_what_was_given_up_is_shown_and_can_be_tried_again(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """After its retries a delivery has failed; the job is completed all the same."""
    bridge = delivering(HOOK.format(url=receiver.url, retries=1))
    receiver.status = 500
    cli = Cli(environ)
    with running_worker(bridge, environ):
        job_id = bridge.submit(make_job("heartbeat", {})).job_id
        eventually(lambda: count_undelivered()["failed"] == 1, 20.0)
        given_up = get_job(job_id).deliveries[0]
        assert (given_up.status, given_up.attempt) == ("failed", 2)
        assert "webhook ci (127.0.0.1) answered 500" in given_up.reason
        shown = cli("jobs", "--undelivered")
        assert [line.split()[:4] for line in shown.out.splitlines()[1:2]] == [
            [job_id, "heartbeat", "completed", "webhook:ci"]
        ]
        assert shown.out.splitlines()[-1] == "Deliveries pending: 0, failed: 1."
        document = cli("jobs", "--undelivered", "--json").json
        assert document["undelivered"] == {"waiting": 0, "failed": 1}
        assert document["jobs"][0]["deliveries"][0]["status"] == "failed"
        assert cli("jobs", "--json").json["summary"]["failed"] == 0
        receiver.status = 200
        assert cli("retry", "--undelivered", "--all") == (0, f"{job_id} webhook:ci\n", "")
        eventually(lambda: count_undelivered() == {"waiting": 0, "failed": 0}, 20.0)
    assert len(receiver.accepted) == 1
    with pytest.raises(WrongState, match="has no failed delivery"):
        redeliver(job_id)
    assert cli("retry", "--undelivered", job_id).code == 2
    assert cli("retry", "--undelivered").code == 2
    assert cli("jobs", "--undelivered", "--all").code == 2


def test_a_killed_worker_delivers_no_job_twice(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """The next worker repeats what was under way, under the same id: the receiver can tell."""
    bridge = delivering(HOOK.format(url=receiver.url, retries=100))
    receiver.hang.clear()
    short = {**environ, "BRIDGE_LEASE_S": "2", "BRIDGE_HEARTBEAT_S": "0.5"}
    with running_worker(bridge, short) as worker:
        job_id = bridge.submit(make_job("heartbeat", {})).job_id
        eventually(lambda: receiver.taken, 20.0)
        worker.kill()
    receiver.hang.set()
    with running_worker(bridge, short, name="second"):
        eventually(lambda: count_undelivered() == {"waiting": 0, "failed": 0}, 20.0)
    assert {taken.headers["webhook-id"] for taken in receiver.taken} == {f"{job_id}-1"}
    assert get_job(job_id).deliveries[0].status == "completed"


def test_a_job_that_is_run_again_is_delivered_again(
    delivering: Delivering, environ: dict[str, str], receiver: Receiver
) -> None:
    """Its new final state is delivered, once."""
    bridge = delivering(HOOK.format(url=receiver.url, retries=100))
    gate = Path(environ["BRIDGE_HOME"]) / "gate"
    with running_worker(bridge, environ):
        job_id = bridge.submit(make_job("shell.cmd", {"argv": ["test", "-e", str(gate)]})).job_id
        eventually(lambda: len(receiver.accepted) == 1, 20.0)
        gate.touch()
        retry(job_id)
        eventually(lambda: len(receiver.accepted) == 2, 20.0)
    events = [(taken.json["event"], taken.headers["webhook-id"]) for taken in receiver.accepted]
    assert events == [("job.failed", f"{job_id}-1"), ("job.completed", f"{job_id}-2")]
    assert [item.delivery_id for item in get_job(job_id).deliveries] == [f"{job_id}-2"]
