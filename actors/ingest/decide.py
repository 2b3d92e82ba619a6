"""Decides what to do with a file: the rules of 3ox.toml, then a model, then the default."""

from __future__ import annotations

from pathlib import Path

from actors.ingest.decision import Decision
from actors.ingest.rules import decide_by_rules, default_decision
from middleware.job.types import IngestFilePayload
from ops.files import explain
from ops.settings.load import LoadedSettings


def decide_what(loaded: LoadedSettings, payload: IngestFilePayload, source: Path) -> Decision:
    """Give what is to be done with a file.

    Args:
        loaded: Rules and settings.
        payload: The file.
        source: Where it lies.

    Raises:
        JobFailed: The file cannot be read.
        JobParked: The model's server has said when to come back.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    station = loaded.settings.station
    ruled = decide_by_rules(station.rules, payload)
    if ruled is not None:
        return ruled
    if not station.understand:
        return default_decision()
    from actors.ingest.understand import understand

    try:
        return understand(loaded, payload, source)
    except OSError as error:
        raise explain(error, f"{payload.name!r} cannot be read") from error
