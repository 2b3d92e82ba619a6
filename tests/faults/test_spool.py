"""Jobs that a daemon accepts during an outage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingress.core.acceptance import Acceptance
from ingress.core.spooled_jobs import SPOOLED, Spooled
from ingress.dispatch import Bridge, connect
from middleware.job.records import Receipt
from middleware.job.schema import Job, encode_job, make_job
from middleware.job.states import State
from ops.errors import InvalidJob, SpoolFull
from ops.settings.load import load_settings
from ops.spool import Spool
from tests.dispatch.test_faults import mortal
from tests.support import RunningValkey, eventually, frozen
from tests.workers import running_worker

__all__ = ["mortal"]


@pytest.fixture
def acceptance(mortal: tuple[RunningValkey, dict[str, str]]) -> Iterator[Acceptance]:
    """What a daemon has, with a store that answers within half a second or not at all."""
    _, environ = mortal
    accepting = Acceptance(Bridge(load_settings(environ=environ), timeout_s=0.5))
    yield accepting
    accepting.stop()


def entry_of(job: Job) -> bytes:
    """Write a job as the spool keeps it."""
    return msgspec.json.encode(Spooled(job=msgspec.Raw(encode_job(job))))


def _append(path: Path, text: str) -> list[str]:
    return ["sh", "-c", f"echo {text} >> {path}"]


def test_jobs_accepted_while_the_store_is_paused_are_carried_out_in_order_once_each(
    mortal: tuple[RunningValkey, dict[str, str]], acceptance: Acceptance, tmp_path: Path
) -> None:
    """A paused store: 200 jobs go to the spool, and from there, each once and in order, to the worker."""
    server, environ = mortal
    bridge = connect(load_settings(environ=environ))
    done = tmp_path / "done"
    with running_worker(bridge, environ, threads=1):
        acceptance.start()
        with frozen(server.pid):
            jobs = [
                make_job("shell.cmd", {"argv": _append(done, str(at))}, source="clock") for at in range(200)
            ]
            receipts = [acceptance.accept(job) for job in jobs]
            assert {receipt.status for receipt in receipts} == {SPOOLED}
            assert acceptance.spool.count() == 200
            assert not done.exists()
        eventually(lambda: bridge.reader.summary()["completed"] == 200, 30.0)
    assert done.read_text().split() == [str(at) for at in range(200)]
    assert acceptance.spool.count() == 0
    first = bridge.reader.receipt(jobs[0].job_id)
    assert first.input_sha256 == receipts[0].input_sha256


def test_a_paused_store_is_not_asked_for_each_key(
    mortal: tuple[RunningValkey, dict[str, str]], acceptance: Acceptance
) -> None:
    """Commands with idempotency keys wait for one time-out all together, not for one each."""
    server, _ = mortal

    def take(key: int) -> Receipt:
        return acceptance.accept(make_job("heartbeat", {}, source="rest", idempotency_key=f"key-{key}"))

    acceptance.start()
    before = take(0)
    with frozen(server.pid):
        started_s = time.monotonic()
        receipts = [take(key) for key in range(1, 41)]
        assert time.monotonic() - started_s < 40 * 0.5 / 4
        assert {receipt.status for receipt in receipts} == {SPOOLED}
        assert take(40).job_id == receipts[-1].job_id
        assert take(0).job_id == before.job_id
    eventually(acceptance.spool.is_empty)
    assert take(41).status != SPOOLED
    assert take(1).job_id == receipts[0].job_id


def test_an_entry_handed_over_before_a_crash_is_not_run_again(
    mortal: tuple[RunningValkey, dict[str, str]], acceptance: Acceptance
) -> None:
    """The job reached the store, its file was not deleted yet: the next hand-over finds it known."""
    _, environ = mortal
    bridge = connect(load_settings(environ=environ))
    job = make_job("heartbeat", {})
    bridge.submit(job)
    assert bridge.scripts.cancel(job.job_id, "to see it stay so")[0] == "cancelled"
    acceptance.accept(job)  # straight to the store, which knows it
    spool = acceptance.spool
    spool.add(job.job_id, entry_of(job))
    assert acceptance.submit_spooled() == 1
    assert bridge.reader.job(job.job_id).status == State.CANCELLED
    assert spool.count() == 0


def test_a_delay_is_kept_in_the_spool(
    mortal: tuple[RunningValkey, dict[str, str]], acceptance: Acceptance
) -> None:
    """What was to start later is not started at the hand-over."""
    server, environ = mortal
    job = make_job("heartbeat", {})
    server.kill()
    assert acceptance.accept(job, delay_s=60.0).status == SPOOLED
    server.start()
    assert acceptance.submit_spooled() == 1
    record = Bridge(load_settings(environ=environ)).reader.job(job.job_id)
    assert record.status == State.SCHEDULED


def test_what_does_not_fit_is_refused_at_the_door(acceptance: Acceptance) -> None:
    """With or without a store, a job that names an unknown resource is not accepted."""
    with pytest.raises(InvalidJob, match="Unknown resource 'gpu'"):
        acceptance.accept(make_job("heartbeat", {}, resources={"gpu": 1}))
    assert acceptance.spool.count() == 0


def test_a_spooled_job_that_fits_no_longer_is_set_aside(acceptance: Acceptance) -> None:
    """One unreadable entry does not hold up those behind it; it is kept for a person to look at."""
    good = make_job("heartbeat", {})
    bad = acceptance.spool.add("bad", b'{"job_type": "nonsense"}')
    acceptance.spool.add(good.job_id, entry_of(good))
    assert acceptance.submit_spooled() == 1
    assert acceptance.spool.count() == 0
    assert (bad.parent / "refused" / bad.name).read_bytes() == b'{"job_type": "nonsense"}'


def test_a_full_spool_says_so(tmp_path: Path) -> None:
    """Over its limit it takes nothing more, and what it has stays whole and in order."""
    spool = Spool(tmp_path / "spool", max_bytes=100)
    for name in ("a", "b", "c"):
        spool.add(name, name.encode() * 30)
    with pytest.raises(SpoolFull, match="raise spool_max_bytes"):
        spool.add("d", b"d" * 30)
    assert [entry.read_bytes()[:1] for entry in spool.entries()] == [b"a", b"b", b"c"]


def test_one_process_takes_from_a_spool(tmp_path: Path) -> None:
    """While one takes, another is told that it does not."""
    spool, other = (Spool(tmp_path / "spool", max_bytes=100) for _ in range(2))
    with spool.exclusive() as ours:
        assert ours
        with other.exclusive() as theirs:
            assert not theirs
    with other.exclusive() as theirs:
        assert theirs


def test_foreign_files_in_the_spool_hold_up_nothing(acceptance: Acceptance) -> None:
    """A directory, a pipe, links, rubbish: what can be read is set aside, the rest ignored."""
    folder = acceptance.spool.folder
    folder.mkdir(exist_ok=True)
    (folder / "0-1-directory.job").mkdir()
    os.mkfifo(folder / "0-2-pipe.job")
    (folder / "0-3-endless.job").symlink_to("/dev/zero")
    (folder / "0-4-loop.job").symlink_to("0-4-loop.job")
    (folder / "0-5-rubbish.job").write_bytes(b"\xff")
    job = make_job("heartbeat", {}, source="clock", idempotency_key="once")
    acceptance.spool.add(job.job_id, entry_of(job))
    assert acceptance.spool.count() == 2
    assert acceptance.accept(job).job_id == job.job_id
    assert acceptance.submit_spooled() == 1
    assert [path.name for path in acceptance.spool.quarantined()] == ["0-5-rubbish.job"]
    assert acceptance.spool.is_empty()
