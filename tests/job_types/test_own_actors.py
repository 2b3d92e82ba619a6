"""A user's own Dramatiq actors: sent, carried, killed, chained and grouped, in real processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingress.core.control import cancel
from ingress.core.lookup import find
from middleware.job.records import JobRecord
from ops.processes import pid_alive
from tests.job_types.conftest import Pools
from tests.support import eventually


def ended(pools: Pools, job_id: str, timeout_s: float = 20.0) -> JobRecord:
    """Wait for a job."""
    return find(pools.bridge, job_id).wait(timeout_s=timeout_s)


def test_a_message_is_a_job_with_arguments_by_name(pools: Pools) -> None:
    """It has a receipt, its result is read by ``get_result``, and its UUID finds it. No warning is logged."""
    with pools.running():
        sent = pools.python(
            "message = thumbnail.send('a.png', size=64)\n"
            "print(json.dumps([message.message_id, message.get_result(block=True)]))"
        )
    message_id, result = sent
    assert result == {"path": "a.png", "size": 64}
    record = find(pools.bridge, message_id).record()
    assert (record.job_type, record.status, record.payload) == ("thumbnail", "completed", result)
    assert [step.status for step in find(pools.bridge, message_id).receipt().transitions] == [
        "queued",
        "processing",
        "completed",
    ]
    log = pools.bridge.loaded.workspace.log_file.read_text()
    assert "job.completed" in log
    assert '"level":"warning"' not in log


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("thumbnail.send(pth='a.png')", "payload.pth"),
        ("thumbnail.send('a.png', size='64')", "payload.size"),
        ("thumbnail.send()", "payload.path"),
        ("broker.enqueue(dramatiq.Message('media', 'thumbnial', (), {}, {}))", "job_type"),
        ("heartbeat().send({}, 'extra')", "payload"),
    ],
)
def test_what_does_not_fit_is_refused_at_send(pools: Pools, call: str, field: str) -> None:
    """Before anything is in the queue, with the field."""
    found = pools.python(
        "from ops.errors import InvalidJob\n"
        "def heartbeat():\n    return broker.get_actor('heartbeat')\n"
        f"try:\n    {call}\nexcept InvalidJob as error:\n    print(json.dumps(error.field))"
    )
    assert found == field
    assert sum(pools.bridge.reader.summary().values()) == 0


def test_a_killed_worker_costs_no_job_and_a_cancelled_one_stops(pools: Pools, tmp_path: Path) -> None:
    """It starts again within a second; progress is seen while it runs; a cancellation stops it."""
    marks = tmp_path / "marks"
    sent = f"print(json.dumps(slow.send({str(marks)!r}, 3.0).message_id))"
    with pools.running() as worker:
        job = find(pools.bridge, pools.python(sent))
        eventually(lambda: job.record().progress > 0, 10.0)
        worker.kill()
        killed_s = time.monotonic()
        with pools.running():
            eventually(lambda: marks.read_text().count("start") == 2, 15.0)
            assert ended(pools, job.job_id).result == "done"
            assert time.monotonic() - killed_s < 15.0
            assert (job.record().crashes, marks.read_text().count("end")) == (1, 1)
            other = find(pools.bridge, pools.python(sent))
            eventually(lambda: other.record().progress > 0, 10.0)
            assert cancel(pools.bridge, other.job_id, "no longer needed").outcome == "cancelling"
            assert ended(pools, other.job_id).status == "cancelled"


def test_a_child_process_ends_with_its_job_and_with_its_worker(pools: Pools, tmp_path: Path) -> None:
    """An actor that waits for a program in one call of the system is cancelled all the same."""
    marks = tmp_path / "marks"

    def child() -> int:
        eventually(lambda: marks.exists() and marks.read_text().endswith("\n"), 10.0)
        pid = int(marks.read_text())
        marks.unlink()
        return pid

    sent = f"print(json.dumps(encode.send({str(marks)!r}).message_id))"
    with pools.running() as worker:
        job_id = pools.python(sent)
        first = child()
        assert cancel(pools.bridge, job_id, "no longer needed").outcome == "cancelling"
        assert ended(pools, job_id).status == "cancelled"
        assert not pid_alive(first)
        job_id = pools.python(sent)
        second = child()
        worker.kill()
        eventually(lambda: not pid_alive(second), 5.0)


def test_a_pipeline_runs_each_step_once_though_its_worker_is_killed(pools: Pools, tmp_path: Path) -> None:
    """The next step is enqueued in the step that ends the one before."""
    marks = str(tmp_path / "marks")
    with pools.running() as worker:
        pools.python(
            f"steps = [count.message({marks!r}), count.message({marks!r}), count.message({marks!r})]\n"
            "(steps[0] | steps[1] | steps[2]).run()"
        )
        eventually(lambda: Path(marks).exists() and "1" in Path(marks).read_text().split(), 10.0)
        worker.kill()
    with pools.running():
        eventually(lambda: pools.bridge.reader.summary()["completed"] == 3, 30.0)
    runs = Path(marks).read_text().split()
    assert (runs[0], runs[-1], sorted(set(runs))) == ("0", "2", ["0", "1", "2"])
    assert (runs.count("0"), runs.count("2")) == (1, 1), "only the step that was killed ran twice"
    assert sum(pools.bridge.reader.summary().values()) == 3


def test_a_group_of_a_thousand_calls_back_once(pools: Pools, tmp_path: Path) -> None:
    """Every member has its result, and the callback is enqueued when the last one completes."""
    marks = tmp_path / "marks"
    with pools.running(threads=8):
        total = pools.python(
            "from dramatiq import group\n"
            "members = group([add.message(n, 1) for n in range(1000)])\n"
            f"members.add_completion_callback(count.message({str(marks)!r}))\n"
            "members.run()\n"
            "print(json.dumps(sum(members.get_results(block=True, timeout=60_000))))"
        )
        assert total == sum(range(1, 1001))
        eventually(lambda: marks.exists() and marks.read_text() == "0\n", 10.0)
        eventually(lambda: pools.bridge.reader.summary()["completed"] == 1001, 10.0)
    assert marks.read_text() == "0\n"


def test_a_coroutine_and_a_delay(pools: Pools) -> None:
    """An async actor needs no middleware of the user's; a delay is kept in the store."""
    with pools.running():
        began_s = time.monotonic()
        result = pools.python(
            "message = hello.send_with_options(args=('you',), delay=700)\n"
            "print(json.dumps(message.get_result(block=True)))"
        )
    assert result == "hello you"
    assert time.monotonic() - began_s >= 0.7


def test_two_pools_take_their_own_jobs_only(pools: Pools) -> None:
    """On one queue and on two; a job whose pool is stopped waits with the reason, and is carried out then."""
    with pools.running("other_jobs"):
        send = "import other_jobs\nprint(json.dumps(other_jobs.{0}.send({1!r}).message_id))"
        done = find(pools.bridge, pools.python(send.format("report", "monday")))
        assert ended(pools, done.job_id).result == "report of monday"
        # This pool consumes the queue ``media`` too, and does not carry ``thumbnail``.
        waiting = find(pools.bridge, pools.python("print(json.dumps(thumbnail.send('b.png').message_id))"))
        eventually(lambda: waiting.record().status == "held", 10.0)
        assert waiting.record().reason == "no worker on queue media has an actor for thumbnail"
        sharp = find(pools.bridge, pools.python(send.format("sharpen", "c.png")))
        assert ended(pools, sharp.job_id).result == "sharp c.png"
        with pools.running("my_jobs"):
            assert ended(pools, waiting.job_id).result == {"path": "b.png", "size": 128}
    assert waiting.record().attempt == 1
