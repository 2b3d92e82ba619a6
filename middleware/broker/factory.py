"""Puts store, scripts, intake and reader together from the settings; used by workers and by ``dispatch``."""

from __future__ import annotations

from middleware.broker.admission import Intake
from middleware.broker.scripts import Bounds, Scripts
from middleware.job.reader import Reader
from ops.settings.load import Settings
from ops.store.client import Store


def make_scripts(store: Store, settings: Settings) -> Scripts:
    """Give the scripts with the limits that the settings set."""
    return Scripts(
        store,
        settings.key_prefix,
        Bounds(
            events_max=settings.events_max,
            queue_max=settings.queue_max,
            idempotency_ttl_ms=settings.idempotency_ttl_s * 1000,
            retention_ms=settings.retention_s * 1000,
            finished_max=settings.finished_max,
            max_crashes=settings.max_crashes,
        ),
    )


def make_intake(scripts: Scripts, settings: Settings) -> Intake:
    """Give the intake."""
    reader = Reader(scripts.store, settings.key_prefix)
    return Intake(scripts, settings, lambda job_id: reader.receipt(job_id, duplicate=True))
