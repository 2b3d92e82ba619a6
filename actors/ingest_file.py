"""``ingest.file``: declared, so that the schema is whole; this version cannot carry it out yet."""

from __future__ import annotations

from typing import NoReturn

from middleware.job.payloads import IngestFilePayload
from ops.errors import JobRefused


def ingest_file(payload: IngestFilePayload) -> NoReturn:  # noqa: ARG001 (every actor takes its payload)
    """Refuse the job.

    Raises:
        JobRefused: Always.
    """
    raise JobRefused(
        "jobs of the type ingest.file cannot be carried out yet: the station is missing in this version.",
        remedy="Use a version of the bridge that brings it.",
    )
