"""``rest.request``: declared, so that the schema is whole; this version cannot carry it out yet."""

from __future__ import annotations

from typing import NoReturn

from middleware.job.payloads import RestRequestPayload
from ops.errors import JobRefused


def rest_request(payload: RestRequestPayload) -> NoReturn:  # noqa: ARG001 (every actor takes its payload)
    """Refuse the job.

    Raises:
        JobRefused: Always.
    """
    raise JobRefused(
        "jobs of the type rest.request cannot be carried out yet: this version has no REST endpoints.",
        remedy="Use a version of the bridge that brings it.",
    )
