"""``heartbeat``, and the settings of a process."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec
import pytest

from actors import context
from actors.context import current_job, set_settings, settings
from ops.settings.load import LoadedSettings
from tests.actors.running import JobRun


def test_heartbeat_says_who_where_and_when() -> None:
    """The canary comes back with its nonce, from this process, now."""
    result = JobRun("heartbeat", {"nonce": "n1"}).run()
    assert (result.nonce, result.worker_id) == ("n1", "test-worker-1")
    assert (result.host, result.pid) == (platform.node(), os.getpid())
    age_s = (datetime.now(UTC) - datetime.fromisoformat(result.at)).total_seconds()
    assert -0.1 < age_s < 5
    assert result.at.endswith("Z")


def test_heartbeat_is_small() -> None:
    """Besides nonce, worker and host there are fewer than 100 bytes."""
    result = JobRun("heartbeat", {}).run()
    size_bytes = len(msgspec.json.encode(result)) - len(result.worker_id) - len(result.host)
    assert size_bytes < 100


def test_settings_are_read_once_from_the_environment(
    plain: LoadedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without set_settings the environment counts, and stays what it was; set_settings wins."""
    monkeypatch.setattr(context._ProcessSettings, "live", None)
    monkeypatch.setenv("BRIDGE_HOME", str(plain.workspace.home))
    monkeypatch.setenv("BRIDGE_WORKERS", "7")
    assert settings().settings.workers == 7
    monkeypatch.setenv("BRIDGE_WORKERS", "8")
    assert settings().settings.workers == 7
    set_settings(plain)
    assert settings() is plain


def test_a_new_project_is_there_for_every_thread_at_once(plain: LoadedSettings) -> None:
    """None gets what held before while another reads the changed file; a broken file changes nothing."""
    set_settings(plain)
    file = plain.workspace.settings_file
    with ThreadPoolExecutor(8) as threads:
        for number in range(10):
            with file.open("a") as text:
                text.write(f'[projects.p{number}]\npath = "."\ncommand = ["true"]\n')
            seen = list(threads.map(lambda _: set(settings().settings.projects), range(32)))
            assert [f"p{number}" in names for names in seen] == [True] * 32
    last = settings()
    with file.open("a") as text:
        text.write("[projects.")
    assert settings() is last


def test_outside_a_job_there_is_no_current_job() -> None:
    """current_job() raises instead of returning the job of another thread."""
    with pytest.raises(LookupError, match="does not run a job"):
        current_job()
