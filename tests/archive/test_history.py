"""Final jobs are copied from the store to the history, unchanged and once."""

from __future__ import annotations

import sqlite3
import time

import msgspec
import pytest

from ingress.core.listing import Catalog
from ingress.core.lookup import JobHandle, Source, find
from ingress.dispatch import Bridge
from middleware.archive.archivist import BATCH, OVERLAP_MS, Archivist
from middleware.archive.history import History, JobFilter
from middleware.broker.transitions import Settlement
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import JobNotFound
from tests.archive.lives import ASK_QUEUE, carry_out, forget


def test_a_job_looks_the_same_before_and_after_it_moved(bridge: Bridge, archivist: Archivist) -> None:
    """Record, receipt and output come from the store first and then, byte for byte, from the history."""
    job_id = carry_out(bridge)
    assert archivist.archive() == 1
    before = Catalog(bridge)
    job = find(bridge, job_id)
    record, receipt = job.record(), job.receipt()
    assert job.source is Source.STORE
    listed = [item.to_json() for item in bridge.reader.page().jobs]
    assert [item.to_json() for item in before.page(JobFilter()).jobs] == listed
    forget(bridge)
    after = Catalog(bridge)
    job = find(bridge, job_id[:12])
    assert job.record().to_json() == record.to_json()
    assert job.source is Source.HISTORY
    assert msgspec.json.encode(find(bridge, job_id[-9:]).receipt()) == msgspec.json.encode(receipt)
    assert [(piece.stream, piece.text) for piece in job.output()] == [("out", "output of x\n")]
    assert [item.to_json() for item in after.page(JobFilter()).jobs] == listed
    assert [item.to_json() for item in after.every(JobFilter())] == [record.to_json()]
    with History(bridge.loaded.workspace.history_db) as history:
        assert history.has_type(record.job_type)
        assert not history.has_type("thumbnail")
    with pytest.raises(JobNotFound):
        find(bridge, "zzzzzz")


def test_each_job_is_archived_once_and_a_retried_one_anew(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """A second round finds nothing; a job that became final again replaces its row."""
    job_id = carry_out(bridge, outcome="failed")
    assert archivist.archive() == 1
    assert archivist.archive() == 0
    bridge.scripts.requeue(job_id, "again")
    bridge.scripts.fetch("w2", ASK_QUEUE, room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w2", job_id, "d", Settlement(outcome="completed", result=b"2"))
    assert archivist.archive() == 1
    assert history.count() == 1
    found = history.job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("completed", 2)


def test_a_crash_in_the_middle_leaves_no_gap(bridge: Bridge, archivist: Archivist, history: History) -> None:
    """Rows and position are one transaction: what was not committed is read again."""
    ids = [carry_out(bridge, str(number)) for number in range(3)]
    places = history.places()
    archivist.archive()
    with sqlite3.connect(bridge.loaded.workspace.history_db) as db:
        db.execute("DELETE FROM jobs WHERE job_id = ?", (ids[2],))
        db.execute("DELETE FROM places")
    assert history.places() == places == {}
    assert archivist.archive() == 1
    assert history.count() == 3


def test_a_result_that_arrives_later_is_in_the_history_too(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """The job is archived when it is final, and again when its delivery is."""
    job = make_job("ask", {"prompt": "x"})
    bridge.submit(job)
    assert bridge.admission.request(bridge.admission.prepare(job)).sinks
    bridge.scripts.fetch("w1", ASK_QUEUE, room=1, delivery="d", lease_ms=60_000)
    bridge.scripts.settle("w1", job.job_id, "d", Settlement(outcome="completed", result=b"1"))
    assert archivist.archive() == 1
    assert archivist.archive() == 0

    def archived() -> list[str]:
        found = history.job(job.job_id)
        assert found is not None
        return [item.status for item in found.deliveries]

    assert archived() == ["queued"]
    (delivery,) = bridge.scripts.fetch("w2", "deliver", room=1, delivery="e", lease_ms=60_000).jobs
    assert archivist.archive() == 0
    bridge.scripts.settle("w2", delivery.job_id, "e", Settlement(outcome="completed", result=b"1"))
    assert archivist.archive() == 1
    assert archived() == ["completed"]
    assert archivist.archive() == 0
    whole = bridge.reader.job(job.job_id)
    forget(bridge)
    bridge.scripts.purge("completed", 10, queue="deliver")
    assert find(bridge, job.job_id).record() == whole


def test_deliveries_that_failed_long_before_others_arrived_are_written_once(
    bridge: Bridge, archivist: Archivist
) -> None:
    """Each set has its own position: a new member of one does not cause the others to be read again."""
    for at, outcome in enumerate(["failed", "completed"]):
        bridge.submit(make_job("ask", {"prompt": "x"}))
        (job,) = bridge.scripts.fetch("w1", ASK_QUEUE, room=1, delivery=f"d{at}", lease_ms=60_000).jobs
        bridge.scripts.settle("w1", job.job_id, f"d{at}", Settlement(outcome="completed", result=b"1"))
        (delivery,) = bridge.scripts.fetch("w2", "deliver", room=1, delivery=f"e{at}", lease_ms=60_000).jobs
        bridge.scripts.settle("w2", delivery.job_id, f"e{at}", Settlement(outcome=outcome, reason="x"))
    earlier = bridge.reader.keys.state(State.FAILED, "deliver")
    (failed,) = bridge.store.call("ZRANGE", earlier, 0, -1)
    bridge.store.call("ZINCRBY", earlier, -10 * OVERLAP_MS, failed)
    archivist.archive()
    archivist.archive()
    assert archivist.archive() == 0


def test_the_end_of_a_long_output_is_kept(bridge: Bridge, archivist: Archivist) -> None:
    """The last bytes are kept with their streams, without half a character."""
    job = make_job("ask", {"prompt": "x"})
    bridge.submit(job)
    bridge.scripts.fetch("w1", ASK_QUEUE, room=1, delivery="d", lease_ms=60_000)
    pieces = [("out" if number % 2 else "err", f"{number:03} äöü\n") for number in range(500)]
    bridge.scripts.run_many(
        [
            bridge.scripts.report_command(
                "w1", job.job_id, "d", percent="", message="", output=pieces, bundle=1
            )
        ]
    )
    bridge.scripts.settle("w1", job.job_id, "d", Settlement(outcome="completed", result=b"1"))
    archivist.archive()
    archived = JobHandle(bridge, job.job_id, source=Source.HISTORY)
    kept = list(archived.output())
    text = "".join(piece.text for piece in kept)
    assert "".join(text for _, text in pieces).endswith(text)
    assert 990 < len(text.encode()) <= 1000
    assert [(piece.stream, piece.text) for piece in kept[1:]] == pieces[-len(kept) + 1 :]
    assert list(archived.output(after=kept[5].entry_id)) == kept[6:]


def test_what_another_version_wrote_does_not_hold_up_the_others(bridge: Bridge, archivist: Archivist) -> None:
    """A job that cannot be read is archived as far as it can be."""
    odd, good = carry_out(bridge, "odd"), carry_out(bridge, "good")
    bridge.store.call("HSET", bridge.reader.keys.job(odd), "spec", '{"job_type":"of.tomorrow"}')
    assert archivist.archive() == 2
    forget(bridge)
    assert find(bridge, odd).record().job_type == "of.tomorrow"
    assert find(bridge, odd).receipt().transitions[-1].status == "completed"
    assert find(bridge, good).record().job_type == "ask"


def test_a_store_whose_clock_went_back_is_archived(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """A position in the future counts as now."""
    history.put([], {"completed": (int(time.time()) + 3600) * 1000})
    job_id = carry_out(bridge)
    assert archivist.archive() == 1
    assert history.job(job_id) is not None
    assert history.places()["completed"] <= int(time.time() * 1000) + 1000


def test_more_than_a_batch_is_archived_batch_by_batch(
    bridge: Bridge, archivist: Archivist, history: History
) -> None:
    """All are archived, each counted once, although many became final in the same millisecond."""
    jobs = [make_job("ask", {"prompt": str(number)}) for number in range(2 * BATCH + 50)]
    bridge.admission.submit(jobs)
    for job in jobs:
        bridge.scripts.cancel(job.job_id, "enough")
    key = bridge.reader.keys.state(State.CANCELLED)
    at_ms = int(time.time() * 1000)
    for job in jobs:
        bridge.store.call("ZADD", key, at_ms, job.job_id)
        bridge.store.call("HSET", bridge.reader.keys.job(job.job_id), "completed", at_ms)
    written = []
    while some := archivist.archive():
        written.append(some)
    assert sum(written) == len(jobs) == history.count()
    assert len(written) > 1
