"""Retries: errors of the host use up none of a file's attempts; counters do not collide with files."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.core.acceptance import Acceptance
from ingress.core.file_jobs import ContentIndex
from ingress.dispatch import Bridge
from ingress.station.claiming import Claimer
from ingress.station.claims import Claims
from ingress.station.retry import LONGEST_WAIT_S
from ingress.station.scanner import Scanner
from ingress.station.submission import ClaimSubmitter
from ops.logs import get_logger
from ops.settings.station import StationSettings
from ops.workspace import Workspace
from tests.station.parts import DEFAULTS, Clock, found
from tests.station.running import RunningStation
from tests.support import eventually

TRIES = 3


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no files within a block."""
    get_logger(__name__).info("test.no_descriptors")  # what it needs is imported with its first line
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(place.name for place in folder.iterdir())


def failed(workspace: Workspace) -> list[str]:
    """Return the names in ``failed/``."""
    place = workspace.inbox / "failed"
    return names(place) if place.is_dir() else []


def test_a_lack_of_descriptors_delays_a_claim(workspace: Workspace) -> None:
    """Without limit and with growing waits; afterwards the file still has all its attempts."""
    (workspace.inbox / "a.txt").write_text("1")
    clock, claims = Clock(), Claims(workspace)
    claimer = Claimer(claims, TRIES, clock)
    item = found(workspace.inbox, "a.txt")
    for _ in range(4 * TRIES):
        with no_descriptors():
            assert claimer.claim(item) is None
        assert claimer.next_s is not None
        assert 0 < claimer.next_s <= LONGEST_WAIT_S
        clock.now_s += claimer.next_s + 0.01
    assert failed(workspace) == []
    assert claimer.claim(item) is not None
    assert claimer.failed_count == 0


def test_a_file_that_cannot_be_refused_is_retried(workspace: Workspace) -> None:
    """Neither a claim nor a move to ``failed/`` is possible; once repaired, the file is claimed."""
    (workspace.inbox / "a.txt").write_text("1")
    clock, claims = Clock(), Claims(workspace)
    claimer = Claimer(claims, 1, clock)
    item = found(workspace.inbox, "a.txt")
    claims.root.write_text("in the way")
    assert claimer.claim(item) is None
    assert claimer.next_s == LONGEST_WAIT_S
    clock.now_s += LONGEST_WAIT_S + 0.01
    claims.root.unlink()
    assert claimer.claim(item) is not None


@pytest.fixture
def submitter(own: Bridge, own_workspace: Workspace, clock: Clock) -> ClaimSubmitter:
    """A submitter with a clock that only the test moves."""
    settings = StationSettings(tries=TRIES)
    claims = Claims(own_workspace)
    index = ContentIndex(own.reader, own.loaded.settings)
    return ClaimSubmitter(Acceptance(own), claims, settings, index, pulse=lambda: None, clock=clock)


@pytest.fixture
def clock() -> Clock:
    """The clock of the submitter."""
    return Clock()


def test_waiting_uses_up_no_try(
    submitter: ClaimSubmitter, clock: Clock, own: Bridge, own_workspace: Workspace
) -> None:
    """Neither an endless writer nor a lack of descriptors counts; only faults of the file do."""
    file = own_workspace.inbox / "a.txt"
    file.write_text("1")
    claims = Claims(own_workspace)
    claim = claims.claim(found(own_workspace.inbox, "a.txt"))
    assert claim is not None
    with claim.path.open("a"):
        submitter.submit([claim])
        for _ in range(TRIES):
            clock.now_s += LONGEST_WAIT_S
            submitter.submit_due()
    for _ in range(TRIES):
        clock.now_s += LONGEST_WAIT_S
        with no_descriptors():
            submitter.submit([claim])
    assert submitter.waiting == 1
    assert failed(own_workspace) == []
    elsewhere = claim.path.rename(own_workspace.home / "elsewhere")
    claim.path.symlink_to(elsewhere)
    for number in range(1, TRIES + 1):
        assert failed(own_workspace) == [], f"refused before try {number} of {TRIES}"
        clock.now_s += LONGEST_WAIT_S
        submitter.submit_due()
    (place,) = failed(own_workspace)
    assert place == claim.job_id
    reason = (own_workspace.inbox / "failed" / place / "a.txt.reason.txt").read_text()
    assert f"Attempts: {TRIES}." in reason
    assert own.reader.summary()["queued"] == 0


def test_a_dropped_file_may_have_the_name_of_any_of_our_own(workspace: Workspace) -> None:
    """If ``dot_files`` lets it through, it is claimed, counted, loaded and failed like any other."""
    (workspace.inbox / ".tries").write_text("precious")
    (item,) = Scanner(workspace.inbox, StationSettings(dot_files=True)).scan().files
    claims = Claims(workspace)
    claim = claims.claim(item)
    assert claim is not None
    assert [claims.count_try(claim.job_id) for _ in range(2)] == [1, 2]
    assert claims.load(claim.job_id) == claim
    assert claim.path.read_text() == "precious"
    assert claims.all_ids() == [claim.job_id]
    place = claims.fail(claim.job_id, "why")
    assert place is not None
    assert (place / ".tries").read_text() == "precious"
    assert names(claims.root) == []


def test_the_counter_of_attempts_is_not_a_file_of_the_claim(workspace: Workspace) -> None:
    """The counter is not treated as a dropped file, and is removed with the claim."""
    (workspace.inbox / "a.txt").write_text("1")
    claims = Claims(workspace)
    claim = claims.claim(found(workspace.inbox, "a.txt"))
    assert claim is not None
    claims.count_try(claim.job_id)
    assert claims.load(claim.job_id) == claim
    assert Scanner(workspace.inbox, DEFAULTS).scan().files == []
    claims.discard(claim.job_id)
    assert names(claims.root) == []
    assert claims.count_try(claim.job_id) == 0, "there is no such claim any more"


@pytest.mark.parametrize(
    "name", [".3ox-probe", ".3ox-drop-01abc.part", ".upload-ab12.part", ".photo.jpg.part"]
)
def test_our_own_drafts_are_never_taken(name: str, workspace: Workspace) -> None:
    """No setting can let an incomplete upload through."""
    (workspace.inbox / name).write_text("half")
    settings = StationSettings(ignore=["*.mine", "!*.part"], dot_files=True)
    assert Scanner(workspace.inbox, settings).scan().files == []


def test_restarts_while_a_claim_waits_use_up_no_try(
    own: Bridge, own_environ: dict[str, str], own_workspace: Workspace
) -> None:
    """A file that was read without a crash has crashed no station, however often stations restart."""
    (own_workspace.inbox / "a.txt").write_text("1")
    claims = Claims(own_workspace)
    claim = claims.claim(found(own_workspace.inbox, "a.txt"))
    assert claim is not None
    for _ in range(own.loaded.settings.station.tries):
        claims.count_try(claim.job_id)
    claims.forget_tries(claim.job_id)
    with claim.path.open("a"), RunningStation(own, own_environ):
        # The file has been read and is retried; the earlier count is reset.
        log = own_workspace.log_file
        eventually(lambda: log.exists() and "station.put_off" in log.read_text())
        eventually(lambda: names(claims.root) == [claim.job_id])
    assert failed(own_workspace) == []
