"""Sealing step by step: each transition once, in one chain, whatever crashes in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.core import control
from ingress.core.ledger_proofs import verify_receipt
from ingress.dispatch import Bridge, dispatch
from middleware.archive.ledger import LINE_MAX_BYTES, lines_backwards
from middleware.archive.ledger_line import NO_LINE, line_hash, read_line
from middleware.archive.sealer import BATCH
from middleware.broker.transitions import Settlement
from middleware.job.records import JobError
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import LeadershipLost, LedgerBroken
from tests.archive.conftest import Scribe
from tests.archive.lives import some_jobs

DAY_S = 86_400.0


def test_every_transition_is_sealed_once_in_a_signed_chain(own: Bridge, scribe: Scribe) -> None:
    """In order of time, with the job's facts on its first line; the store's marks are removed."""
    jobs = some_jobs(own)
    scribe.seal()
    assert scribe.transitions() == sorted(
        (job_id, index) for at, job_id in enumerate(jobs) for index in range(1 if at % 2 else 2)
    )
    lines = scribe.file.read_bytes().splitlines()
    before = NO_LINE
    for number, raw in enumerate(lines, start=1):
        line = read_line(raw)
        assert (line.seq, line.prev) == (number, before)
        assert (line.job is not None) == (line.index == 0)
        before = line_hash(raw)
    first = scribe.lines()[0]
    assert first.job is not None
    assert (first.job.job_type, first.job.source, first.job.actor) == ("heartbeat", "python", "eve")
    times = [line.entry["at"] for line in scribe.lines()]
    assert times == sorted(times)
    assert own.store.call("EXISTS", scribe.key("unsealed")) == 0
    size_bytes = scribe.file.stat().st_size
    assert scribe.seal() == 0
    assert scribe.file.stat().st_size == size_bytes
    verdict = scribe.verify()
    assert (verdict.ok, verdict.lines, verdict.jobs) == (True, len(lines), 3)


def test_a_reason_of_any_length_leaves_the_ledger_provable(own: Bridge, scribe: Scribe) -> None:
    """Errors of actors and reasons of users are cut, so no line exceeds the limit."""
    endless = "no " * LINE_MAX_BYTES
    failing, cancelled = (dispatch("heartbeat", {}).job_id for _ in range(2))
    own.scripts.fetch("w1", "jobs", room=1, delivery="d", lease_ms=60_000)
    settlement = Settlement(
        outcome="failed", reason=endless, error=JobError.of(ValueError(endless), traceback=endless).encode()
    )
    own.scripts.settle("w1", failing, "d", settlement)
    control.cancel(own, cancelled, endless)
    control.retry(own, failing, endless)
    scribe.seal()
    verdict = scribe.verify()
    assert (verdict.ok, verdict.jobs, verdict.fault) == (True, 2, None)
    assert len(scribe.file.read_bytes()) < LINE_MAX_BYTES


def test_more_than_one_batch_is_sealed_whole(own: Bridge, scribe: Scribe) -> None:
    """No transition is missing or repeated."""
    jobs = [make_job("heartbeat", {}) for _ in range(BATCH + 100)]
    own.admission.submit(jobs)
    assert scribe.seal() >= 2
    assert scribe.transitions() == sorted((job.job_id, 0) for job in jobs)
    assert scribe.verify().ok


def test_a_job_that_goes_on_is_sealed_on(own: Bridge, scribe: Scribe) -> None:
    """Only new transitions are written; a retry by hand continues the chain."""
    job_id = dispatch("heartbeat", {}).job_id
    scribe.seal()
    control.cancel(own, job_id, "first")
    control.retry(own, job_id, "again")
    scribe.seal()
    control.cancel(own, job_id, "second")
    scribe.seal()
    assert scribe.transitions() == [(job_id, index) for index in range(4)]
    assert scribe.verify().ok


def test_a_transition_that_comes_meanwhile_is_not_forgotten(own: Bridge, scribe: Scribe) -> None:
    """The mark stays as long as the chain is longer than what was noted."""
    job_id = dispatch("heartbeat", {}).job_id
    control.cancel(own, job_id, "meanwhile")
    assert scribe.sealing.note(scribe.term, "other", 1, "x", {job_id: 1})
    assert own.store.call("SISMEMBER", scribe.key("unsealed"), job_id) == 1
    assert scribe.sealing.note(scribe.term, "other", 2, "x", {job_id: 2})
    assert own.store.call("SISMEMBER", scribe.key("unsealed"), job_id) == 0
    assert own.store.call("HGET", own.reader.keys.job(job_id), "ledger") == b"other"


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_crash_in_the_middle_of_a_line_is_repaired(own: Bridge, scribe: Scribe, kept: int) -> None:
    """However much of the last line was written: it is cut off and sealed again, without a gap."""
    some_jobs(own)
    scribe.seal()
    whole = scribe.file.read_bytes()
    before = scribe.transitions()
    more = some_jobs(own)
    half = whole.splitlines()[-1][:kept]
    scribe.file.write_bytes(whole + half)
    assert scribe.verify().ok, "what is half written proves nothing, and spoils nothing"
    heir = scribe.successor("heir")
    heir.seal()
    assert heir.file.read_bytes().startswith(whole)
    assert len(heir.transitions()) == len(set(heir.transitions())) == len(before) + 5
    assert {job_id for job_id, _ in heir.transitions()} >= set(more)
    verdict = heir.verify()
    assert verdict.ok, verdict.fault
    assert verdict.notes == []


def test_a_first_line_that_was_never_whole_is_repaired(own: Bridge, scribe: Scribe) -> None:
    """The file has no line end."""
    some_jobs(own)
    scribe.folder.mkdir(exist_ok=True)
    (scribe.folder / "2026-11-22.jsonl").write_bytes(b'{"v":1,')
    scribe.now_s = 1_795_348_800.0
    scribe.seal()
    assert scribe.lines()[0].seq == 1
    assert scribe.verify().ok


def test_lines_that_were_written_and_not_noted_are_not_written_again(own: Bridge, scribe: Scribe) -> None:
    """The leader lost its lease in between, or crashed: the next one finds them at the end of the file."""
    some_jobs(own)
    scribe.seal()
    jobs = some_jobs(own)
    heir = scribe.successor("heir")
    with pytest.raises(LeadershipLost):
        scribe.seal()
    assert own.store.call("SCARD", scribe.key("unsealed")) == 3
    written = scribe.transitions()
    dispatch("heartbeat", {})
    control.cancel(own, jobs[1], "later")
    heir.seal()
    assert len(heir.transitions()) == len(set(heir.transitions())) == len(written) + 2
    assert own.store.call("EXISTS", scribe.key("unsealed")) == 0
    assert heir.verify().ok


def test_none_of_many_lines_that_were_not_noted_is_written_again(own: Bridge, scribe: Scribe) -> None:
    """More jobs wait than one round seals, and a whole round was written before the leader crashed."""
    own.admission.submit([make_job("heartbeat", {}) for _ in range(3 * BATCH)])
    heir = scribe.successor("heir")
    with pytest.raises(LeadershipLost):
        scribe.seal()
    assert len(scribe.lines()) == BATCH
    heir.seal()
    assert len(heir.transitions()) == len(set(heir.transitions())) == 3 * BATCH
    assert heir.verify().ok


def test_leaders_that_take_turns_continue_one_chain(own: Bridge, scribe: Scribe) -> None:
    """Each finds the end of what the other wrote."""
    writer = scribe
    for turn in range(6):
        some_jobs(own, 2)
        writer.seal()
        writer = writer.successor(f"leader {turn}")
    assert [line.seq for line in writer.lines()] == list(range(1, 19))
    assert len({line.ledger for line in writer.lines()}) == 1
    assert writer.verify().ok


def test_a_store_that_lost_its_last_moments_is_told_from_a_forged_ledger(own: Bridge, scribe: Scribe) -> None:
    """Sealed lines stay; transitions that replace lost ones are sealed with a mark; the ledger is valid."""
    job_id = dispatch("heartbeat", {}).job_id
    scribe.seal()
    head = own.store.call("HGET", scribe.key("ledgers"), scribe.ledger.name)
    control.cancel(own, job_id, "lost")
    scribe.seal()
    own.store.call("RPOP", own.reader.keys.receipts(job_id))
    own.store.call("HSET", own.reader.keys.job(job_id), "sealed", 1)
    own.store.call("HSET", scribe.key("ledgers"), scribe.ledger.name, head)
    own.store.call(
        "RPUSH", own.reader.keys.receipts(job_id), '{"at":1795348800000,"status":"processing","attempt":1}'
    )
    own.store.call("SADD", scribe.key("unsealed"), job_id)
    scribe.successor("heir").seal()
    assert [(line.index, line.entry["status"], line.after_loss) for line in scribe.lines()] == [
        (0, "queued", False),
        (1, "cancelled", False),
        (1, "processing", True),
    ]
    verdict = scribe.verify()
    assert verdict.ok, verdict.fault
    assert verify_receipt(own, job_id).ok


def test_a_job_that_has_lost_transitions_goes_on_later(own: Bridge, scribe: Scribe) -> None:
    """The store has lost a job's last transition; the job continues only after a round of sealing."""
    job_id = dispatch("heartbeat", {}).job_id
    scribe.seal()
    head = own.store.call("HGET", scribe.key("ledgers"), scribe.ledger.name)
    kept = own.store.call("DUMP", own.reader.keys.job(job_id))
    control.cancel(own, job_id, "lost")
    scribe.seal()
    own.store.call("RESTORE", own.reader.keys.job(job_id), 0, kept, "REPLACE")
    own.store.call("ZREM", own.reader.keys.state(State.CANCELLED), job_id)
    own.store.call("ZADD", own.reader.keys.state(State.QUEUED), 1, job_id)
    own.store.call("RPOP", own.reader.keys.receipts(job_id))
    own.store.call("HSET", scribe.key("ledgers"), scribe.ledger.name, head)
    dispatch("heartbeat", {})
    heir = scribe.successor("heir")
    heir.seal()
    control.cancel(own, job_id, "once more")
    heir.seal()
    assert [
        (line.index, line.entry["status"], line.after_loss) for line in heir.lines() if line.job_id == job_id
    ] == [
        (0, "queued", False),
        (1, "cancelled", False),
        (0, "queued", True),
        (1, "cancelled", False),
    ]
    verdict = heir.verify()
    assert verdict.ok, verdict.fault
    assert verify_receipt(own, job_id).ok


def test_a_lost_job_can_be_submitted_again(own: Bridge, scribe: Scribe) -> None:
    """Its id is submitted again, from the spool or by a repeated run of a schedule."""
    dispatch("heartbeat", {})
    scribe.seal()
    head = own.store.call("HGET", scribe.key("ledgers"), scribe.ledger.name)
    job = make_job("heartbeat", {})
    own.submit(job)
    scribe.seal()
    job_id = job.job_id
    own.store.call("DEL", own.reader.keys.job(job_id), own.reader.keys.receipts(job_id))
    own.store.call("ZREM", own.reader.keys.state(State.QUEUED), job_id)
    own.store.call("ZREM", own.reader.keys.index_all, job_id)
    own.store.call("HSET", scribe.key("ledgers"), scribe.ledger.name, head)
    dispatch("heartbeat", {})
    heir = scribe.successor("heir")
    heir.seal()
    assert not own.submit(job).duplicate
    heir.seal()
    assert [(line.index, line.after_loss) for line in heir.lines() if line.job_id == job_id] == [
        (0, False),
        (0, True),
    ]
    verdict = heir.verify()
    assert verdict.ok, verdict.fault


def test_days_are_files_of_one_chain(own: Bridge, scribe: Scribe) -> None:
    """Each day can be verified alone, with its links; after the clock is set back, no older day is begun."""
    for days in (0, 1, -3, 2):
        some_jobs(own)
        scribe.now_s = 1_795_348_800.0 + days * DAY_S
        scribe.seal()
    names = [file.stem for file in sorted(scribe.folder.glob("*.jsonl"))]
    assert names == ["2026-11-22", "2026-11-23", "2026-11-24"]
    assert [line.seq for line in scribe.lines()] == list(range(1, 21))
    verdict = scribe.verify()
    assert (verdict.ok, verdict.days) == (True, names)
    for name in names:
        alone = scribe.verify(name)
        assert (alone.ok, alone.days) == (True, [name]), alone.fault
    with pytest.raises(LedgerBroken, match="has no file of 2026-11-25"):
        scribe.verify("2026-11-25")
    middle = scribe.folder / "2026-11-23.jsonl"
    lines = middle.read_bytes().splitlines(keepends=True)
    middle.write_bytes(b"".join(lines[:-1]))
    assert not scribe.verify("2026-11-23").ok, "its end is cut off: the next day does not join"
    assert not scribe.verify("2026-11-24").ok
    assert scribe.verify("2026-11-22").ok


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.integers(0, 200_000), max_size=6), tail=st.integers(0, 70_000))
def test_lines_are_read_backwards(
    tmp_path_factory: pytest.TempPathFactory, lines: list[int], tail: int
) -> None:
    """With any lengths; text after the last line end is not a line."""
    folder = tmp_path_factory.mktemp("ledger")
    texts = [str(at).encode() + b"x" * length for at, length in enumerate(lines)]
    (folder / "2026-11-22.jsonl").write_bytes(b"".join(text + b"\n" for text in texts) + b"y" * tail)
    assert list(lines_backwards(folder)) == texts[::-1]


def test_a_ledger_that_cannot_be_opened_says_so(own: Bridge, scribe: Scribe) -> None:
    """A read-only disk, or another file in its place: an error with a remedy; sealing continues later."""
    some_jobs(own)
    (scribe.folder / ".lock").mkdir()
    with pytest.raises(LedgerBroken, match="cannot be written: Is a directory"):
        scribe.seal()
    (scribe.folder / ".lock").rmdir()
    scribe.seal()
    assert scribe.verify().ok
