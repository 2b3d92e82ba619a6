"""``heartbeat``, and the settings of a process."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

import msgspec
import pytest

from actors import context
from actors.context import current_job, set_settings, settings
from ops.settings import LoadedSettings
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
    monkeypatch.setattr(context._Process, "loaded", None)
    monkeypatch.setenv("BRIDGE_HOME", str(plain.workspace.home))
    monkeypatch.setenv("BRIDGE_WORKERS", "7")
    assert settings().settings.workers == 7
    monkeypatch.setenv("BRIDGE_WORKERS", "8")
    assert settings().settings.workers == 7
    set_settings(plain)
    assert settings() is plain


def test_outside_a_job_there_is_no_current_job() -> None:
    """current_job() tells so instead of giving somebody else's job."""
    with pytest.raises(LookupError, match="no job"):
        current_job()
