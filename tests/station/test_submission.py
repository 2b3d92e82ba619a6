"""Received files: killed at any step nothing is lost or half there, a full disk is an error."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from ingress.core.file_jobs import ContentIndex
from ingress.core.file_submission import CLAIMED, FileSubmission
from ingress.dispatch import Bridge
from ingress.station.claims import Claims
from ingress.station.scanner import Scanner
from middleware.job.ids import new_job_id
from middleware.job.records import Receipt
from middleware.job.schema import Job
from ops.errors import BridgeError, StoreUnreachable, UsageProblem
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.station.killing import dies_at
from tests.station.parts import DEFAULTS


def without_store(job: Job) -> Receipt:
    """Refuse a job, as a bridge without a store does."""
    raise StoreUnreachable(f"no store for {job.job_id}")


@pytest.fixture
def submission(workspace: Workspace) -> FileSubmission:
    """What ``3ox drop`` uses, while no store runs."""
    loaded = load_settings(workspace.home, environ={})
    bridge = Bridge(loaded)
    return FileSubmission(loaded, ContentIndex(bridge.reader, loaded.settings), without_store)


def test_killed_at_any_step_a_drop_is_whole_or_not_there(
    submission: FileSubmission, workspace: Workspace, tmp_path: Path
) -> None:
    """A claim that exists has file and note; a draft is never taken for a file; the original stays."""
    source = tmp_path / "a.txt"
    source.write_text("content" * 1000)
    claims = Claims(workspace)
    seen = 0
    for number in itertools.count(1):
        died = dies_at(number, workspace.inbox, lambda: submission.drop(source, note="about"))
        for job_id in claims.all_ids():
            claim = claims.load(job_id)
            assert claim is not None
            assert claim.note is not None
            assert (claim.path.read_text(), claim.note.read_text()) == ("content" * 1000, "about")
        assert Scanner(workspace.inbox, DEFAULTS).scan().files == []
        assert source.read_text() == "content" * 1000
        if not died:
            break
        seen = number
    assert seen > 5
    assert claims.all_ids() != []


def test_an_interrupted_submission_is_repeated_with_its_id(
    submission: FileSubmission, workspace: Workspace
) -> None:
    """The claim of the first attempt stays as it is, since a worker may be reading it."""
    job_id = new_job_id()
    for _ in range(2):
        draft = submission.draft("telegram")
        draft.write_text("content")
        answer = submission.submit(draft, "a.txt", "about", sha256="0" * 64, size_bytes=7, job_id=job_id)
        assert (answer.job_id, answer.status) == (job_id, CLAIMED)
        assert not draft.exists()
    assert Claims(workspace).all_ids() == [job_id]


def test_what_cannot_be_dropped(submission: FileSubmission, workspace: Workspace, tmp_path: Path) -> None:
    """A folder, a pipe, a file that is written meanwhile, a full disk: an error, and nothing is left."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(UsageProblem):
            submission.drop(path)
    (tmp_path / "a.txt").write_text("x")
    (workspace.home / "3ox.toml").write_text(f"[station]\nfree_min_bytes = {2**60}\n")
    loaded = load_settings(workspace.home, environ={})
    full = FileSubmission(loaded, ContentIndex(Bridge(loaded).reader, loaded.settings), without_store)
    with pytest.raises(BridgeError, match="bytes left"):
        full.drop(tmp_path / "a.txt")
    assert [path for path in workspace.inbox.rglob("*") if path.is_file()] == []
