"""Jobs through a real worker: results, receipts, retries, limits, cancellation, live output, exact delays."""

from __future__ import annotations

import hashlib
import statistics
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingress.dispatch import (
    Bridge,
    cancel,
    dispatch,
    dispatch_many,
    follow,
    follow_all,
    get_job,
    get_receipt,
    list_jobs,
    read_output,
    retry,
    wait_for,
)
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from ops.errors import InvalidJob, JobNotFound, WaitTimeout, WrongState
from ops.processes import find_marked
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("bridge")

GATE = 'echo waiting; while [ ! -e "$1" ]; do sleep 0.02; done; echo done'
COUNT = 'n=$(cat "$1" 2>/dev/null || echo 0); n=$((n+1)); echo $n >"$1"; echo "try $n"; [ $n -ge "$2" ]'


def shell(script: str, *arguments: object, **fields: Any) -> str:
    """Submit a shell script and return the job's id."""
    argv = ["sh", "-c", script, "sh", *map(str, arguments)]
    return dispatch("shell.cmd", {"argv": argv}, **fields).job_id


def ended(job_id: str) -> JobRecord:
    """Return a job when it has ended."""
    return wait_for(job_id, timeout_s=20.0)


def moment(text: str | None) -> float:
    """Return a time of a record in seconds since 1970."""
    return datetime.fromisoformat(str(text)).timestamp()


def test_a_job_ends_with_result_and_receipt(bridge: Bridge) -> None:
    """The record has input and result, and the receipt chain their hashes."""
    receipt = dispatch("heartbeat", {"nonce": "n-1"}, actor="bob", source="cli")
    assert receipt.status == "queued"
    record = ended(receipt.job_id)
    assert (record.status, record.result["nonce"], record.attempt) == ("completed", "n-1", 1)
    assert record.actor == "bob"
    final = get_receipt(receipt.job_id)
    assert [line.status for line in final.transitions] == ["queued", "processing", "completed"]
    assert final.receipt_id == receipt.receipt_id == record.receipt_id
    assert final.input_sha256 == hashlib.sha256(b'{"nonce":"n-1"}').hexdigest() == receipt.input_sha256
    stored = bridge.store.call("GET", bridge.reader.keys.result(record.job_id))
    assert final.result_sha256 == hashlib.sha256(stored).hexdigest()
    assert final.worker_id == record.worker_id == record.result["worker_id"]


def test_many_jobs_all_come_back_with_their_own_result() -> None:
    """Of a batch of 300 none is lost or mixed up, and each is committed once."""
    jobs = [make_job("heartbeat", {"nonce": f"n{at}"}) for at in range(300)]
    receipts = dispatch_many(jobs)
    assert [receipt.job_id for receipt in receipts] == [job.job_id for job in jobs]
    for at, job in enumerate(jobs):
        record = ended(job.job_id)
        assert (record.status, record.result["nonce"]) == ("completed", f"n{at}")
    chains = [[line.status for line in get_receipt(job.job_id).transitions] for job in jobs[::30]]
    assert all(chain == ["queued", "processing", "completed"] for chain in chains)


def test_a_job_that_fails_twice_and_then_succeeds_shows_three_attempts(tmp_path: Path) -> None:
    """Each attempt has its end and reason, in one receipt chain; the waits are within the backoff."""
    job_id = shell(COUNT, tmp_path / "count", 3, max_retries=2)
    record = ended(job_id)
    assert (record.status, record.attempt, record.error) == ("completed", 3, None)
    assert [(item.attempt, item.status) for item in record.attempts] == [
        (1, "retrying"),
        (2, "retrying"),
        (3, "completed"),
    ]
    assert all("exit status 1" in item.reason for item in record.attempts[:2])
    chain = [line.status for line in get_receipt(job_id).transitions]
    assert chain == ["queued", *["processing", "retrying", "queued"] * 2, "processing", "completed"]
    for before, after in zip(record.attempts, record.attempts[1:], strict=False):
        assert 0 <= moment(after.started_at) - moment(before.ended_at) < 0.05 + 1.0
    assert "".join(chunk.text for chunk in read_output(job_id)) == "try 1\ntry 2\ntry 3\n"


def test_retries_end_and_can_be_started_again_by_hand(tmp_path: Path) -> None:
    """After the last attempt the job has failed with its cause; a manual retry gets as many again."""
    job_id = shell(COUNT, tmp_path / "count", 4, max_retries=1)
    record = ended(job_id)
    assert (record.status, record.attempt) == ("failed", 2)
    assert record.reason == "failed in attempt 2 of 2: exit status 1"
    assert record.error is not None
    assert record.error.type == "CommandFailed"
    assert record.result["exit_status"] == 1
    assert retry(job_id[:18]).status in {"queued", "processing"}
    again = ended(job_id)
    assert (again.status, again.attempt, again.result["exit_status"]) == ("completed", 4, 0)
    assert again.reason == "attempt 4 of 4 succeeded; 2 before the retry by hand"
    assert str(again.attempt_count) == "4 of 4, 2 before the retry by hand"
    with pytest.raises(WrongState, match="is completed; only failed and cancelled jobs can be retried"):
        retry(job_id)


def test_what_can_never_succeed_is_not_retried() -> None:
    """A program that does not exist fails at once, in one attempt."""
    receipt = dispatch("shell.cmd", {"argv": ["no-such-program-3ox"]}, max_retries=5)
    record = ended(receipt.job_id)
    assert (record.status, record.attempt) == ("failed", 1)
    assert record.reason.startswith("refused: The program 'no-such-program-3ox' does not exist")
    assert record.error is not None
    assert record.error.remedy


def test_the_time_limit_ends_a_job_and_all_that_it_started() -> None:
    """Soon after its time limit it has failed, with a remedy, and no process is left."""
    job_id = shell("sleep 300 & sleep 300", timeout_seconds=0.3)
    record = ended(job_id)
    assert record.status == "failed"
    assert record.error is not None
    assert "longer than its limit of 0.3 s" in record.error.message
    assert 0.3 <= moment(record.completed_at) - moment(record.started_at) < 5.0
    assert find_marked("BRIDGE_JOB_ID", job_id) == []


@pytest.mark.parametrize("script", ["sleep 300 & sleep 300", "trap '' TERM; sleep 300 & wait; sleep 300"])
def test_cancelling_leaves_no_grandchildren(script: str) -> None:
    """The job is cancelled when none of its processes runs, even if they ignore SIGTERM."""
    job_id = shell(f"echo started; {script}")
    assert next(iter(read_output(job_id, follow=True))).text == "started\n"
    reply = cancel(job_id, reason="cancelled by bob")
    assert (reply.outcome, reply.status) == ("cancelling", "processing")
    record = ended(job_id)
    assert record.status == "cancelled"
    assert record.reason.startswith("cancelled by bob; ")
    assert find_marked("BRIDGE_JOB_ID", job_id) == []
    assert cancel(job_id).outcome == "finished"


def test_cancelling_before_the_start_is_at_once() -> None:
    """A delayed job that is cancelled never runs."""
    job_id = dispatch("heartbeat", {}, delay_s=60).job_id
    assert cancel(job_id).outcome == "cancelled"
    record = ended(job_id)
    assert (record.status, record.attempts) == ("cancelled", [])


def test_output_is_seen_while_the_job_runs(tmp_path: Path) -> None:
    """Output arrives before the job ends, and reading ends with the job."""
    gate = tmp_path / "gate"
    job_id = shell(GATE, gate)
    chunks = read_output(job_id, follow=True)
    assert next(chunks).text == "waiting\n"
    assert get_job(job_id).status == "processing"
    gate.touch()
    assert "".join(chunk.text for chunk in chunks) == "done\n"
    assert get_job(job_id).status == "completed"


def test_following_shows_every_stage(tmp_path: Path) -> None:
    """Yields each state from the first to the final one."""
    gate = tmp_path / "gate"
    job_id = shell(GATE, gate)
    eventually(lambda: get_job(job_id).status == "processing")
    seen = []
    for record in follow(job_id, timeout_s=20.0):
        seen.append(record.status)
        gate.touch()
    assert seen[0] == "processing"
    assert seen[-1] == "completed"


def test_all_events_can_be_followed_and_resumed() -> None:
    """After a given event nothing is missed."""
    job_id = dispatch("heartbeat", {}).job_id
    ended(job_id)
    mine = []
    for event in follow_all(after="0-0", idle_s=1.0):
        if event is None:
            break
        if event.job_id == job_id:
            mine.append(event)
            if event.status == "completed":
                break
    assert [event.status for event in mine] == ["queued", "processing", "completed"]
    later = take(follow_all(after=mine[0].event_id, idle_s=1.0), job_id, 2)
    assert later == mine[1:]


def take(events: Any, job_id: str, count: int) -> list[Any]:
    """Return the next events of one job."""
    found: list[Any] = []
    for event in events:
        if event is None or len(found) == count:
            break
        if event.job_id == job_id:
            found.append(event)
            if len(found) == count:
                break
    return found


def test_an_idempotency_key_runs_the_command_once(tmp_path: Path) -> None:
    """The second submission gets the first one's receipt, and nothing runs twice."""
    count = tmp_path / "count"
    key = f"once {tmp_path}"
    first = dispatch("shell.cmd", {"argv": ["sh", "-c", f"echo x >>{count}"]}, idempotency_key=key)
    ended(first.job_id)
    second = dispatch("shell.cmd", {"argv": ["sh", "-c", f"echo x >>{count}"]}, idempotency_key=key)
    assert (second.job_id, second.duplicate, second.status) == (first.job_id, True, "completed")
    assert count.read_text() == "x\n"


def test_dependents_start_after_what_they_wait_for(tmp_path: Path) -> None:
    """It starts when the last dependency has completed, and not if one fails."""
    gate = tmp_path / "gate"
    first = shell(GATE, gate)
    second = dispatch("heartbeat", {}, depends_on=[first])
    assert second.status == "held"
    gate.touch()
    record = ended(second.job_id)
    assert record.status == "completed"
    assert moment(record.started_at) >= moment(get_job(first).completed_at)
    bad = shell("sleep 0.2; exit 1")
    assert ended(dispatch("heartbeat", {}, depends_on=[bad]).job_id).status == "cancelled"


def test_delays_are_exact_on_an_idle_bridge() -> None:
    """Never early, and at the median at most 50 ms late."""
    delays_s = (0.15, 0.31, 0.47, 0.63, 0.79)
    receipts = [dispatch("heartbeat", {}, delay_s=delay_s) for delay_s in delays_s]
    late_s = []
    for receipt in receipts:
        record = ended(receipt.job_id)
        late_s.append(moment(record.result["at"]) - moment(record.due_at))
    assert min(late_s) >= -0.002, "clocks of both sides are cut to whole milliseconds"
    assert statistics.median(late_s) <= 0.05, late_s


def test_waiting_runs_out() -> None:
    """The wait times out with exit code 124, and the job goes on."""
    job_id = dispatch("heartbeat", {}, delay_s=60).job_id
    with pytest.raises(WaitTimeout) as caught:
        wait_for(job_id, timeout_s=0.05)
    assert caught.value.exit_code == 124
    assert get_job(job_id).status == "scheduled"
    cancel(job_id)


def test_unknown_jobs_are_not_found() -> None:
    """Every function raises JobNotFound."""
    for ask in (get_job, get_receipt, wait_for, cancel, retry):
        with pytest.raises(JobNotFound):
            ask("0000000000zzzzzzzzzz")


def test_many_can_wait_for_one_job(tmp_path: Path) -> None:
    """All of them return when it ends."""
    gate = tmp_path / "gate"
    job_id = shell(GATE, gate)
    ends: list[str] = []
    threads = [threading.Thread(target=lambda: ends.append(ended(job_id).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.touch()
    for thread in threads:
        thread.join(20.0)
    assert ends == ["completed"] * 8


def test_a_job_that_cannot_be_read_is_ended_and_others_go_on(bridge: Bridge) -> None:
    """A record that this version cannot read fails with its reason, and is not fetched for ever."""
    strange = make_job("heartbeat", {})
    request = bridge.admission.request(bridge.admission.prepare(strange))
    spec = b'{"job_type":"newer.kind","payload":{},"newer_field":1}'
    list(bridge.scripts.enqueue([msgspec.structs.replace(request, spec=spec)]))
    eventually(lambda: bridge.reader.status_of(strange.job_id) == "failed")
    assert ended(dispatch("heartbeat", {}).job_id).status == "completed"
    bridge.store.call("HSET", bridge.reader.keys.job(strange.job_id), "spec", request.spec)


def test_the_list_shows_what_ran() -> None:
    """Newest first, with the summary of all states."""
    job_id = dispatch("heartbeat", {}).job_id
    ended(job_id)
    page = list_jobs(job_type="heartbeat", limit=5)
    assert job_id in {job.job_id for job in page.jobs}
    assert page.summary["completed"] >= 1


def test_what_is_no_job_is_refused_by_name() -> None:
    """A mapping passed to dispatch_many raises an error with a remedy, not an AttributeError."""
    wrong: Any = {"job_type": "heartbeat", "payload": {}}
    with pytest.raises(InvalidJob, match="'dict' is not a job") as caught:
        dispatch_many([wrong])
    assert "make_job" in caught.value.remedy
