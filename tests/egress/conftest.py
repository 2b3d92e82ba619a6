"""A receiver, an ended job, and settings as the test writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.egress.outcome import Outcome
from ingress.dispatch import Bridge, connect
from middleware.job.records import JobError, JobRecord, Receipt
from ops.settings.load import LoadedSettings, load_settings
from tests.egress.receiver import Receiver
from tests.workers import sweep

Configured = Callable[[str], LoadedSettings]
Delivering = Callable[[str], Bridge]

JOB_ID = "01m80d7sz963anr5amss"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes everything."""
    with Receiver() as made:
        yield made


@pytest.fixture
def configured(environ: dict[str, str]) -> Configured:
    """Write 3ox.toml and return the settings."""

    def write(settings: str) -> LoadedSettings:
        (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(settings)
        return load_settings(environ=environ)

    return write


@pytest.fixture
def delivering(configured: Configured, environ: dict[str, str]) -> Iterator[Delivering]:
    """Write 3ox.toml and return the bridge; its processes are stopped afterwards."""
    yield lambda settings: connect(configured(settings))
    sweep(environ)


def outcome(status: str = "completed", **fields: Any) -> Outcome:
    """Return a finished job for delivery."""
    life: dict[str, Any] = {
        "job_id": JOB_ID,
        "trace_id": JOB_ID,
        "job_type": "ask",
        "status": status,
        "source": "cli",
        "actor": "bob",
        "project": None,
        "session_id": None,
        "priority": 5,
        "payload": {"prompt": "How are you?"},
        "result": {"text": "Fine, **thanks**."} if status == "completed" else None,
        "error": JobError("AskFailed", "No provider answered.", "Ask again.") if status == "failed" else None,
        "completed_at": "2026-11-21T23:59:59.999Z",
        "reason": "attempt 1 succeeded",
    }
    record = JobRecord(**{**life, **fields})
    receipt = Receipt(
        receipt_id=f"r-{record.job_id}",
        job_id=record.job_id,
        trace_id=record.trace_id,
        job_type=record.job_type,
        source=record.source,
        actor=record.actor,
        project=record.project,
        status=record.status,
    )
    return Outcome(delivery_id=f"{record.job_id}-1", record=record, receipt=receipt)
